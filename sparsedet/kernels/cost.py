"""Weights of a compact layer, which are also its multiply-adds per output pixel (or row).

Of :func:`tucker_weights` alone they are not: see there.
"""

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


def tucker_weights(
    channels: int, positions: int, out_features: int, rank: int, channel_rank: int
) -> int:
    """``c C + r (c P + n_out)``; the first are used at each of P positions."""
    return channel_rank * channels + low_rank_weights(channel_rank * positions, out_features, rank)
