"""Principal directions of a covariance."""

from __future__ import annotations

import torch

WHOLE = 1024
"""Largest covariance that is always decomposed as a whole."""


def principal_directions(
    covariance: torch.Tensor, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalues (decreasing) and their eigenvectors (columns, orthonormal).

    A few directions of a large covariance come from subspace iteration, which is exact enough for
    a projection and many times faster than the whole decomposition.

    Args:
        covariance: (C, C), symmetric and positive semidefinite.
        count: how many, at most C; all by default.
    """
    size = len(covariance)
    count = size if count is None else min(count, size)
    if size <= WHOLE or count > size // 4:
        values, vectors = torch.linalg.eigh(covariance)
        return values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(size, count + count // 4 + 8, generator=generator, dtype=torch.double)
    basis = basis.to(covariance)
    for _ in range(12):
        basis = torch.linalg.qr(covariance @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
    return values.flip(0)[:count].clamp(min=0), (basis @ vectors.flip(1))[:, :count]
