"""A fully connected layer as a product of thin ones."""

from __future__ import annotations

import torch
from torch import nn


class LowRankLinear(nn.Module):
    """``y = E (R x) + b`` with R of shape (rank, in_features) and E of (out_features, rank).

    Input and output have the shapes of ``nn.Linear(in_features, out_features)``.

    Raises:
        ValueError: a rank outside 1 .. min(in_features, out_features).
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True):
        super().__init__()
        largest = min(in_features, out_features)
        if not 1 <= rank <= largest:
            raise ValueError(f"rank {rank} of a {in_features}x{out_features} layer: 1 to {largest}")
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        self.reduce = nn.Linear(in_features, rank, bias=False)
        self.expand = nn.Linear(rank, out_features, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal initialisation that keeps the variance of the input, bias zero."""
        for linear in (self.reduce, self.expand):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        if self.expand.bias is not None:
            nn.init.zeros_(self.expand.bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features); named as ``nn.Linear`` names it."""
        return self.expand(self.reduce(input))

    @torch.no_grad()
    def rescale_(self, scale: torch.Tensor) -> None:
        """Divide what R gives by ``scale`` (rank,), which E undoes: the module gives the same."""
        self.reduce.weight /= scale[:, None]
        self.expand.weight *= scale

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """The one dense layer that this one equals."""
        bias = self.expand.bias
        dense = nn.Linear(self.reduce.in_features, self.out_features, bias=bias is not None).to(
            self.expand.weight
        )
        dense.weight.copy_(self.expand.weight @ self.reduce.weight)
        if bias is not None:
            dense.bias.copy_(bias)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        """What the layer is, when it is printed."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


class TuckerLinear(LowRankLinear):
    """Of flattened maps, with fewer channels first: ``y = E (R (M x)) + b``.

    x is a map of C channels at P positions, and M of shape (channel_rank, C) the same at each of
    them: the Tucker-2 decomposition (Kim et al., arXiv 1511.06530) of the layer as a convolution
    with a window of P positions. R has shape (rank, channel_rank * P), E (out_features, rank).

    Input and output have the shapes of ``nn.Linear(in_features, out_features)``; an input is what
    ``maps.flatten(1)`` gives of (N, C, H, W).

    Raises:
        ValueError: positions that do not divide in_features, a channel_rank outside 1 .. C, or a
            rank outside 1 .. min(channel_rank * P, out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        channel_rank: int,
        positions: int,
        bias: bool = True,
    ):
        channels, rest = divmod(in_features, positions)
        if rest:
            raise ValueError(f"{in_features} features are not those of {positions} positions")
        if not 1 <= channel_rank <= channels:
            raise ValueError(f"channel_rank {channel_rank} of {channels} channels")
        super().__init__(channel_rank * positions, out_features, rank, bias)
        self.in_features, self.channel_rank, self.positions = in_features, channel_rank, positions
        self.mix = nn.Conv2d(channels, channel_rank, 1, bias=False)
        nn.init.normal_(self.mix.weight, std=channels**-0.5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, in_features) to (N, out_features)."""
        return super().forward(self.mixed(input))

    def mixed(self, input: torch.Tensor) -> torch.Tensor:
        """M x, (N, channel_rank * P)."""
        channels = self.in_features // self.positions
        # Not unflatten(), whose trace holds the number of the rows that it was traced with.
        return self.mix(input.reshape(-1, channels, self.positions, 1)).flatten(1)

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """The one dense layer that this one equals."""
        dense = super().to_dense()
        weight = dense.weight.unflatten(1, (self.channel_rank, self.positions))
        weight = torch.einsum("ojp,jc->ocp", weight, self.mix.weight[:, :, 0, 0]).flatten(1)
        dense.weight, dense.in_features = nn.Parameter(weight), self.in_features
        return dense

    def extra_repr(self) -> str:
        """What the layer is, when it is printed."""
        return (
            f"{super().extra_repr()}, channel_rank={self.channel_rank}, positions={self.positions}"
        )
