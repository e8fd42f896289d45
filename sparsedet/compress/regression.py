"""Reduced-rank regression on the taps of several sparse kernels at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .spectrum import principal_directions

Spectra = list[torch.Tensor]
"""For each kernel, the variance that each further rank would explain, in decreasing order."""

RIDGES = 6
"""How many to try, each ten times the one before, until a matrix has a Cholesky factor."""


class Regression:
    """The best ``y = sum_m F_m S_m x_m`` of given ranks, x_m the columns of kernel m in a patch x.

    For one kernel, the others given, this is reduced-rank regression on the residual: in the
    coordinates z_m = L_m^-1 x_m, with L_m the Cholesky factor of the covariance of x_m, it is a
    truncated SVD. All kernels are cut so, starting from the dense weights, and then improved in
    turn. Neighbouring taps are strongly correlated, so each kernel could do a part of another's
    work, and plain alternation is slow; solving for all fusions F_m jointly after each turn speeds
    it up several times.

    Time grows as C D^2 for each turn and D^3 once, for D numbers in a patch and C outputs; memory,
    beside the covariance itself, is about as large as it.

    Args:
        xx: (D, D) covariance of patches, positive definite.
        yx: (C, D) covariance of outputs with patches.
        yy: summed variance of the outputs.
        weight: (C, D), the dense layer.
        blocks: for each kernel, the numbers of its columns.
    """

    def __init__(
        self,
        xx: torch.Tensor,
        yx: torch.Tensor,
        yy: torch.Tensor,
        weight: torch.Tensor,
        blocks: Sequence[torch.Tensor],
    ):
        self.yy = yy
        self.roots = [_root(xx[b[:, None], b]) for b in blocks]
        self.yz = [_whiten(yx[:, b], root) for b, root in zip(blocks, self.roots)]
        self.zz = {}
        for m, rows in enumerate(blocks):
            for j in range(m + 1, len(blocks)):
                covariance = _whiten(xx[blocks[j][:, None], rows], self.roots[m])
                self.zz[m, j] = _whiten(covariance.T, self.roots[j])
                self.zz[j, m] = self.zz[m, j].T
        uses = torch.bincount(torch.cat(list(blocks)), minlength=xx.shape[0]).to(xx)
        # One pair (F_m, S_m L_m) per kernel.
        identity = torch.eye(len(weight)).to(xx)
        self.factors = [
            (identity, (weight / uses)[:, b] @ root) for b, root in zip(blocks, self.roots)
        ]
        self._directions: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def spectra(self) -> Spectra:
        """What each further rank of each kernel would explain, by which to choose ranks."""
        residuals = [self.yz[m] - self._others(m) for m in range(len(self.factors))]
        spectra, bases = zip(*(principal_directions(r @ r.T) for r in residuals))
        self._directions = list(zip(bases, residuals))
        return list(spectra)

    def cut(self, ranks: Sequence[int]) -> None:
        """Cut every kernel to its rank."""
        if self._directions is None:
            self.spectra()
        self.factors = [
            (basis[:, :rank], basis[:, :rank].T @ residual)
            for rank, (basis, residual) in zip(ranks, self._directions)
        ]
        self._directions = None
        self._solve_fusions()

    def improve(self, turns: int) -> None:
        """Solve for the sparse kernels in turn, and for all fusions jointly, ``turns`` times."""
        for _ in range(turns if len(self.factors) > 1 else 0):
            for m, (fusion, _) in enumerate(self.factors):
                fusion = torch.linalg.qr(fusion).Q
                self.factors[m] = fusion, fusion.T @ self.yz[m] - self._others(m, fusion.T)
            self._solve_fusions()

    def _others(self, m: int, left: torch.Tensor | None = None) -> torch.Tensor:
        """What the other kernels explain of kernel m's inputs, multiplied by ``left``."""
        total = 0.0
        for j, (fusion, sparse) in enumerate(self.factors):
            if j != m:
                fusion = fusion if left is None else left @ fusion
                total = total + fusion @ (sparse @ self.zz[j, m])
        return total

    def _solve_fusions(self) -> None:
        sparse = [s for _, s in self.factors]
        right = torch.cat([yz @ s.T for yz, s in zip(self.yz, sparse)], dim=1)
        fusions = torch.cholesky_solve(right.T, _root(self._gram())).T
        self.explained = (fusions * right).sum()
        self.factors = list(zip(fusions.split([len(s) for s in sparse], dim=1), sparse))

    def _gram(self) -> torch.Tensor:
        """Covariance of the outputs of all sparse kernels."""
        sparse = [s for _, s in self.factors]
        parts: dict[tuple[int, int], torch.Tensor] = {}
        for m, s in enumerate(sparse):
            parts[m, m] = s @ s.T
            for j in range(m + 1, len(sparse)):
                parts[m, j] = s @ self.zz[m, j] @ sparse[j].T
                parts[j, m] = parts[m, j].T
        kernels = range(len(sparse))
        return torch.cat([torch.cat([parts[m, j] for j in kernels], dim=1) for m in kernels])

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of each kernel, as it is cut."""
        return tuple(len(sparse) for _, sparse in self.factors)

    @property
    def error(self) -> float:
        """Mean square error as a share of the variance of the outputs, once the ranks are cut."""
        return max(0.0, 1 - (self.explained / self.yy).item())

    def weights(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(F_m, S_m) of each kernel, of shapes (C, rank) and (rank, columns)."""
        return [
            (fusion, torch.linalg.solve_triangular(root.T, sparse.T, upper=True).T)
            for (fusion, sparse), root in zip(self.factors, self.roots)
        ]


def _whiten(covariance: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Covariance with x to covariance with ``root^-1 x``."""
    return torch.linalg.solve_triangular(root, covariance.T, upper=False).T


def _root(gram: torch.Tensor) -> torch.Tensor:
    """Cholesky factor of a matrix that may be singular or, by rounding, a little indefinite.

    A ridge is added to the matrix, in place, and increased until there is a factor.
    """
    least = torch.finfo(gram.dtype)
    # At first well above rounding and well below any variance that matters.
    ridge = least.eps**0.8 * gram.diagonal().mean() + least.tiny
    for _ in range(RIDGES):
        gram.diagonal().add_(ridge)
        root, failed = torch.linalg.cholesky_ex(gram)
        if not failed:
            return root
        ridge *= 10
    return torch.linalg.cholesky(gram)
