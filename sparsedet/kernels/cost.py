"""Weights of a compact layer, which are also its multiply-adds per output pixel (or row)."""

from __future__ import annotations

from collections.abc import Sequence

from .patterns import SparseKernel


def fusion_weights(
    in_channels: int,
    out_channels: int,
    kernels: Sequence[SparseKernel],
    ranks: Sequence[int],
    groups: int = 1,
) -> int:
    """``sum_m r_m (n_m C_in + C_out) / groups`` for sparse kernels of n_m taps and ranks r_m."""
    return sum(
        rank * (len(kernel.taps) * in_channels + out_channels) // groups
        for kernel, rank in zip(kernels, ranks)
    )


def low_rank_weights(in_features: int, out_features: int, rank: int) -> int:
    """``r (n_in + n_out)``."""
    return rank * (in_features + out_features)
