"""Reduced-rank regression for a fully connected layer with more inputs than samples."""

from __future__ import annotations

import torch

from .moments import RIDGE
from .spectrum import principal_directions


def white_variance(x: torch.Tensor) -> float:
    """The l of :class:`LowRankRegression` for samples (n, D)."""
    return RIDGE * (x.square().sum().item() / len(x) or 1.0)


class LowRankRegression:
    """The best ``y - mean y = E R (x - mean x)`` of some rank, held to the dense layer.

    With fewer samples n than inputs D, a covariance of the inputs would be large and singular, so
    all is solved through the n x n Gram matrix of the samples (the dual of ridge regression). The
    ridge is centred on the dense weight W: what the samples do not show stays as W has it,

        A = W + T^T (G + l I)^-1 X,   T = Y - X W^T,   G = X X^T,

    and the rank is cut along the principal directions of A's outputs, on the samples and on white
    inputs of weight l beside them.

    Args:
        x: (n, D) samples of the inputs, float32.
        y: (n, C) what the dense layer made of its own inputs at the same places, float32.
        weight: (C, D).
        centered: about the means; False for a layer without bias.
    """

    def __init__(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, centered: bool = True
    ):
        self.weight = weight if weight.dtype == torch.double else weight.float()
        x, y = x.to(self.weight), y.to(x.device, torch.double)
        self.variance = (y - y.mean(0)).square().sum().clamp(min=1e-300)
        self.mean_x, self.mean_y = x.mean(0) * centered, y.mean(0) * centered
        self.x, self.y = x - self.mean_x, y - self.mean_y
        gram = (self.x @ self.x.T).double()
        ridge = white_variance(self.x)
        dense = self.x @ self.weight.T
        root = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)).to(gram))
        self.pull = torch.cholesky_solve(self.y - dense, root)
        pulled = self.y - dense - ridge * self.pull  # G (G + l I)^-1 T
        outputs = (dense + pulled).to(self.weight)
        pull, pulled = self.pull.to(self.weight), pulled.to(self.weight)
        cross = dense.T @ pull
        white = self.weight @ self.weight.T + cross + cross.T + pull.T @ pulled
        self.covariance = (outputs.T @ outputs + ridge * white).double()

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """E (C, rank) and R (rank, D)."""
        _, basis = principal_directions(self.covariance, rank)
        reduce = basis.T.to(self.weight) @ self.weight
        return basis, reduce + (self.pull @ basis).T.to(self.x) @ self.x

    def error(
        self,
        expand: torch.Tensor,
        reduce: torch.Tensor,
        offset: torch.Tensor,
        x: torch.Tensor | None = None,
    ) -> float:
        """Mean square error on the samples as a share of the variance of y.

        ``offset`` (C,) is what the map and its bias add to the mean of y. ``x`` is what the map
        reads of the samples, about its mean, where that is not what the regression reads.
        """
        x = self.x if x is None else x
        outputs = (x @ reduce.T.to(x)).double() @ expand.T.double() + offset
        return ((outputs - self.y).square().sum() / self.variance).item()
