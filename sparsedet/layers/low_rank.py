"""A fully connected layer as a product of two thin ones."""

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
        dense = nn.Linear(self.in_features, self.out_features, bias=bias is not None).to(
            self.expand.weight
        )
        dense.weight.copy_(self.expand.weight @ self.reduce.weight)
        if bias is not None:
            dense.bias.copy_(bias)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        """What the layer is, when it is printed."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"
