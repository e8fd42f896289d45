"""What the options of one layer are compared on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .candidates import can_fuse
from .curves import Option, convolution_options, linear_options
from .fit import ROWS
from .low_rank import white_variance
from .moments import Moments
from .patches import count_patches, groups_of, split_patches, take_patches, weight_matrix
from .sensitivity import Sensitivity
from .survey import Sample

PATCHES = 4
"""Patches, as a multiple of the numbers in one; ranking options needs fewer than fitting one."""


class Collector:
    """What one layer sees, and then its options."""

    def __init__(self, layer: nn.Module, sample: Sample, name: str, sensitivity: Sensitivity):
        self.layer, self.sample, self.name = layer, sample, name
        parts = sensitivity.split(groups_of(layer))
        weights = weight_matrix(layer.weight).float().chunk(len(parts))
        self.weights = [part.weigh(weight) for part, weight in zip(parts, weights)]
        self.centered = layer.bias is not None
        self.moments = [Moments(self.centered) for _ in parts]
        self.rows: list[torch.Tensor] = []
        self.samples = 0

    def collect(self, batch: int, call: int, x: torch.Tensor) -> None:
        """A visit, as :func:`observe` makes it."""
        count = count_patches(self.layer, x)
        patches = take_patches(self.layer, x, self.sample(self.name, batch, call, count))
        self.samples += len(patches)
        if isinstance(self.layer, nn.Linear):
            self.rows.append(patches)
        else:
            parts = zip(self.moments, split_patches(self.layer, patches), self.weights)
            for moments, part, weight in parts:
                moments.add(part, F.linear(part, weight))

    def options(self, patterns: Sequence[str]) -> list[Option]:
        """The dense layer and then the smaller ones; nothing can be collected afterwards."""
        if not self.samples:  # it ran on nothing, as a mask head does where nothing is found
            return [Option(None, self.layer.weight.numel(), 0.0)]
        if isinstance(self.layer, nn.Linear):
            x = torch.cat(self.rows)
            x -= x.mean(0) * self.centered
            [weight] = self.weights
            y = F.linear(x, weight)
            # On the samples, and on white inputs as the fit has them.
            covariance = y.T @ y + white_variance(x) * (weight @ weight.T)
            return linear_options(self.layer, covariance)
        statistics = [moments.statistics() for moments in self.moments]
        for group, weight in zip(statistics, self.weights):
            group.regularize_(weight.to(group.xx))
        fitting = [pattern for pattern in patterns if can_fuse(self.layer, pattern)]
        return convolution_options(self.layer, list(zip(statistics, self.weights)), fitting)


def wanted(layer: nn.Module) -> int:
    """About how many positions of a layer to look at."""
    return ROWS if isinstance(layer, nn.Linear) else max(PATCHES * layer.weight[0].numel(), ROWS)
