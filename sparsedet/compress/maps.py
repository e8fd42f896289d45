"""Which mixtures of the channels of maps a fully connected layer needs, the same at all positions.

A layer that reads flattened maps (C, P) has one weight W_p (out_features, C) for each position p.
All of them hardly need more than a few mixtures of the channels: of a VGG-11's fc6, 16 of 128 in
rank 48 leave a third of the error that rank 16 of all of them leaves, in fewer weights.
"""

from __future__ import annotations

import torch

CHUNK = 512
"""Rows that are summed at once: 51 MB, of VGG's fc6."""

FLOOR = 1e-3
"""Variance that every direction of the channels is given, as a share of the mean."""


def mixed(x: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """``mix`` (c, C) at each position of flattened maps (n, C * P): (n, c * P)."""
    maps = x.unflatten(1, (mix.shape[1], -1))
    return torch.matmul(mix.to(x), maps).flatten(1)


class ChannelBasis:
    """The channels of flattened maps in other coordinates, those that matter most first.

    Of a channel covariance ``S = L L^T``, the mean over positions, and eigenvectors V of
    ``sum_p L^T W_p^T W_p L``: channels V^T L^-1 x are white, and the first c of them are those
    that change the outputs most, where positions are not correlated (as Zhang et al., arXiv
    1505.06798, choose outputs).

    Args:
        weight: (out_features, C * P).
        positions: P.
        x: (n, C * P) inputs about their mean; None counts all channels alike.
    """

    def __init__(self, weight: torch.Tensor, positions: int, x: torch.Tensor | None = None):
        matter = _of_channels(weight, positions)
        self.root = torch.eye(len(matter)).to(matter)
        if x is not None:
            covariance = _of_channels(x, positions)
            scale = covariance.diagonal().mean().clamp(min=1e-300)
            self.root = torch.linalg.cholesky(covariance / scale + FLOOR * self.root)
        _, vectors = torch.linalg.eigh(self.root.T @ matter @ self.root)
        self.vectors = vectors.flip(1)

    def directions(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first of them: what mixes the channels to them (c, C), and what leads back (C, c)."""
        vectors = self.vectors[:, :count]
        mix = torch.linalg.solve_triangular(self.root.T, vectors, upper=True).T
        return mix, self.root @ vectors


def _of_channels(x: torch.Tensor, positions: int) -> torch.Tensor:
    """Products of the channels (C, C), float64, summed over rows and positions of (n, C * P)."""
    total = 0.0
    for some in x.split(CHUNK):
        channels = some.unflatten(1, (-1, positions)).transpose(1, 2).flatten(0, 1)
        total = total + (channels.T @ channels).double()
    return total
