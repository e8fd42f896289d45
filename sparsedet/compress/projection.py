"""The nearest compact layer to a dense one, from its weights alone."""

from __future__ import annotations

import torch
from torch import nn

from ..layers import LowRankLinear, SparseFusionConv2d, TuckerLinear
from .maps import ChannelBasis, mixed
from .spectrum import principal_directions

SWEEPS = 20
"""Alternations for a pattern whose kernels overlap; disjoint kernels need one."""


@torch.no_grad()
def project_convolution(dense: nn.Conv2d, fusion: SparseFusionConv2d) -> None:
    """Set ``fusion`` to the nearest it can be to ``dense`` in the Frobenius norm of the weights.

    Each sparse kernel's block of taps has its own truncated SVD. Blocks of a partition are
    disjoint, so the whole is optimal (Eckart and Young); overlapping blocks are solved in turn.
    """
    groups = dense.groups
    weight = dense.weight.double()
    blocks = [_Block(weight, kernel.taps, groups) for kernel in fusion.kernels]
    overlap = sum(len(kernel.taps) for kernel in fusion.kernels) > len(
        {tap for kernel in fusion.kernels for tap in kernel.taps}
    )
    approximation = torch.zeros_like(weight)
    for _ in range(SWEEPS if overlap else 1):
        for block, rank in zip(blocks, fusion.ranks):
            approximation -= block.product()
            block.fit(weight - approximation, rank // groups)
            approximation += block.product()
    for index, block in enumerate(blocks):
        fusion.set_kernel(index, block.sparse.flatten(0, 1), block.fusion.flatten(0, 1))
    if dense.bias is not None:
        fusion.fusion.bias.copy_(dense.bias)


class _Block:
    """One sparse kernel's part of a weight, factored group by group."""

    def __init__(self, weight: torch.Tensor, taps, groups: int):
        self.shape = weight.shape
        self.rows, self.columns = (list(axis) for axis in zip(*taps))
        self.groups = groups
        per_group, out_per_group = weight.shape[1], weight.shape[0] // groups
        self.sparse = weight.new_zeros(groups, 1, per_group, len(taps))
        self.fusion = weight.new_zeros(groups, out_per_group, 1)

    def fit(self, weight: torch.Tensor, rank: int) -> None:
        block = weight[:, :, self.rows, self.columns].unflatten(0, (self.groups, -1))
        u, s, v = torch.linalg.svd(block.flatten(2), full_matrices=False)
        # A rank above that of the block stores zeros.
        kept = min(rank, s.shape[-1])
        root = s[:, :kept].sqrt()
        self.fusion = block.new_zeros(*u.shape[:2], rank)
        self.fusion[..., :kept] = u[..., :kept] * root[:, None]
        self.sparse = block.new_zeros(self.groups, rank, *block.shape[2:])
        self.sparse[:, :kept] = (v[:, :kept] * root[..., None]).unflatten(-1, block.shape[2:])

    def product(self) -> torch.Tensor:
        """This kernel's dense weight, zero outside its taps."""
        weight = self.sparse.new_zeros(self.shape)
        product = (self.fusion @ self.sparse.flatten(2)).flatten(0, 1)
        weight[:, :, self.rows, self.columns] = product.unflatten(-1, (self.shape[1], -1))
        return weight


@torch.no_grad()
def project_linear(dense: nn.Linear, low_rank: LowRankLinear) -> None:
    """Set ``low_rank`` to the truncated SVD of ``dense``, the nearest of its rank.

    It comes from the principal directions of the smaller of W W^T and W^T W: VGG's fc6 takes
    seconds where its SVD takes minutes.
    """
    weight = dense.weight if dense.weight.dtype == torch.double else dense.weight.float()
    set_low_rank(low_rank, *_truncated(weight, low_rank.rank))
    if dense.bias is not None:
        low_rank.expand.bias.copy_(dense.bias)


@torch.no_grad()
def project_maps(dense: nn.Linear, tucker: TuckerLinear) -> None:
    """Set ``tucker`` to the truncated higher-order SVD of ``dense``, along channels and outputs."""
    weight = dense.weight if dense.weight.dtype == torch.double else dense.weight.float()
    basis = ChannelBasis(weight, tucker.positions)
    mix, back = basis.directions(tucker.channel_rank)
    factors = _truncated(mixed(weight, back.T), tucker.rank)
    set_tucker(tucker, *factors, mix)
    if dense.bias is not None:
        tucker.expand.bias.copy_(dense.bias)


def _truncated(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors of the nearest matrix of a rank."""
    if weight.shape[0] <= weight.shape[1]:
        _, basis = principal_directions((weight @ weight.T).double(), rank)
        return basis, basis.T.to(weight) @ weight
    _, basis = principal_directions((weight.T @ weight).double(), rank)
    return weight @ basis.to(weight), basis.T


def set_low_rank(low_rank: LowRankLinear, expand: torch.Tensor, reduce: torch.Tensor) -> None:
    """Write both factors, balanced."""
    expand, reduce = balance(expand, reduce)
    low_rank.expand.weight.copy_(expand)
    low_rank.reduce.weight.copy_(reduce)


def set_tucker(
    tucker: TuckerLinear, expand: torch.Tensor, reduce: torch.Tensor, mix: torch.Tensor
) -> None:
    """Write all factors, balanced; ``mix`` is (channel_rank, C)."""
    maps = reduce.unflatten(1, (tucker.channel_rank, tucker.positions)).transpose(1, 2)
    maps, mix = balance(maps.flatten(0, 1), mix)
    reduce = maps.unflatten(0, (-1, tucker.positions)).transpose(1, 2).flatten(1)
    set_low_rank(tucker, expand, reduce)
    tucker.mix.weight.copy_(mix[:, :, None, None])


def balance(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same product with equal norms of column i of ``left`` and row i of ``right``.

    Gradient descent then moves both factors at a like pace, and low precision suits both.
    """
    left, right = left.double(), right.double()
    scale = (right.norm(dim=1) / left.norm(dim=0)).sqrt()
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
    return left * scale, right / scale[:, None]
