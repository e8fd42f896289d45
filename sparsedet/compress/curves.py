"""Error against cost: what one layer loses at each choice of pattern and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..kernels import sparse_kernels
from .maps import ChannelBasis, mixed
from .moments import Statistics
from .patches import groups_of, kernel_columns
from .plan import LayerPlan, channels_of, compact_weights, used_again, within
from .regression import Regression, Spectra

SHARES = [0.75 * 2 ** (-3 * k / 4) for k in range(8)]
"""Sizes, as shares of the dense layer's, at which ranks are fitted: from 3/4 to 1/51."""

CHANNELS = 16
"""Ranks of convolutions are multiples of it, if not less: the width of vector units. ONNX Runtime
and OpenVINO keep channels in blocks of 16, and reorder them where a layer's end between two."""

LINEAR = 4
"""Those of fully connected layers, whose features are in no blocks. Half of a small detector's
weights may be one such layer, where 16 ranks more or less are all that can be spent."""

MIXED = (4, 8, 16)
"""Of so many channels of maps one is kept, in a fully connected layer that reads them."""

SMALLER = [0.75 * 2 ** (-3 * k / 4) for k in range(2, 14)]
"""The shares at which ranks are fitted then: such layers lose little when they are small."""

BETWEEN = 4
"""Options from one such size to the next; their errors are interpolated."""


@dataclass(frozen=True)
class Option:
    """A layer under a plan, or dense where that is None.

    ``weights`` are also its multiply-adds per output position, but for ``again`` more of them;
    ``error`` is the mean square error of its output as a share of the output's variance.
    """

    plan: LayerPlan | None
    weights: int
    error: float
    again: int = 0

    @property
    def multiply_adds(self) -> int:
        """Per output position."""
        return self.weights + self.again


def convolution_options(
    conv: nn.Conv2d,
    groups: Sequence[tuple[Statistics, torch.Tensor]],
    patterns: Sequence[str],
) -> list[Option]:
    """The dense convolution and then, pattern by pattern, smaller and smaller fusions.

    A pattern is fitted once, to fewer and fewer ranks: at each size, the ranks that explain the
    most variance per weight are kept, whichever sparse kernel they belong to. All groups have the
    same ranks.

    Args:
        groups: for each group of the convolution, the statistics of its patches and its own
            outputs, regularised, and the matrix (C, D) that gives these outputs.
    """
    # Comparing options needs no double precision.
    parts = [(s.xx.float(), s.yx.float(), s.yy.float(), w.to(s.xx.float())) for s, w in groups]
    options = [Option(None, conv.weight.numel(), 0.0)]
    for pattern in patterns:
        kernels = sparse_kernels(pattern, conv.kernel_size)
        blocks = [kernel_columns(kernel, conv) for kernel in kernels]
        prices = [len(block) + conv.out_channels // conv.groups for block in blocks]
        if sum(prices) * conv.groups >= conv.weight.numel():
            continue  # not even one rank of each would be smaller
        regressions = [Regression(*part, blocks) for part in parts]
        points = []
        for share in SHARES:
            spectra = [sum(kernel) for kernel in zip(*(r.spectra() for r in regressions))]
            ranks = spend(spectra, prices, share * conv.weight.numel() / conv.groups)
            for regression in regressions:
                regression.cut(ranks)
                regression.improve(1)
            points.append((regressions[0].ranks, _error(regressions)))
        options += _options(conv, LayerPlan(pattern=pattern), points)
    return options


def _error(regressions: Sequence[Regression]) -> float:
    """Of all groups together."""
    if len(regressions) == 1:
        return regressions[0].error
    variances = [r.yy.item() for r in regressions]
    errors = [r.error * variance for r, variance in zip(regressions, variances)]
    return sum(errors) / max(sum(variances), 1e-300)


def linear_options(linear: nn.Linear, covariance: torch.Tensor) -> list[Option]:
    """The dense layer and then lower and lower ranks.

    Args:
        covariance: (out_features, out_features), of the outputs.
    """
    explained = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0).cumsum(0)
    price = linear.in_features + linear.out_features
    ranks = [max(1, int(share * linear.weight.numel() / price)) for share in SHARES]
    points = _linear_points(ranks, explained, explained[-1])
    return [Option(None, linear.weight.numel(), 0.0), *_options(linear, LayerPlan(), points)]


def maps_options(
    linear: nn.Linear,
    positions: int,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    white: float,
) -> list[Option]:
    """For fewer and fewer channels of the maps that the layer reads, lower and lower ranks.

    Args:
        positions: pixels of a map.
        x, y: (n, in_features) and (n, out_features), inputs about their mean, and the outputs that
            are to be given of these.
        weight: (out_features, in_features), what makes them.
        white: the weight of white inputs beside these, see :class:`LowRankRegression`.
    """
    basis = ChannelBasis(weight, positions, x)
    channels, outputs = linear.in_features // positions, linear.out_features
    total = (y.square().sum() + white * weight.square().sum()).clamp(min=1e-300)
    options: list[Option] = []
    for channel_rank in dict.fromkeys(max(1, channels // by) for by in MIXED):
        mix, back = basis.directions(channel_rank)
        kept, product = mixed(weight, back.T), torch.linalg.cholesky(mix @ mix.T)
        given = mixed(x, mix) @ kept.T
        on_white = mixed(kept, product.T)
        apart = weight.square().sum() + on_white.square().sum()
        apart -= 2 * (mixed(weight, mix) * kept).sum()
        lost = (y - given).square().sum() + white * apart
        covariance = given.T @ given + white * (on_white @ on_white.T)
        values = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0)
        explained = values.cumsum(0) + (total - lost - values.sum())
        left = [share * linear.weight.numel() - channel_rank * channels for share in SMALLER]
        price = channel_rank * positions + outputs
        largest = min(channel_rank * positions, outputs)
        ranks = dict.fromkeys(min(int(x / price), largest) for x in left if x >= price)
        form = LayerPlan(channel_rank=channel_rank, positions=positions)
        options += _options(linear, form, _linear_points(ranks, explained, total))
    return options


def _linear_points(ranks, explained: torch.Tensor, total: torch.Tensor):
    errors = 1 - explained / total.clamp(min=1e-300)
    return [((rank,), max(0.0, errors[rank - 1].item())) for rank in ranks]


def spend(spectra: Spectra, prices: Sequence[int], budget: float) -> list[int]:
    """Ranks of all kernels, of the greatest explained variance per price, within a budget.

    Every kernel has rank 1 at least.
    """
    ranked = sorted(
        (
            (value / price, m)
            for m, (spectrum, price) in enumerate(zip(spectra, prices))
            for value in spectrum.tolist()[1:]
        ),
        reverse=True,
    )
    ranks = [1] * len(prices)
    left = budget - sum(prices)
    for _, m in ranked:
        if prices[m] > left:
            break
        ranks[m] += 1
        left -= prices[m]
    return ranks


def _options(layer: nn.Module, form: LayerPlan, points) -> list[Option]:
    """Options at rounded ranks along a curve of (ranks of a group, error), from large to small."""
    if not points:
        return []
    groups, block = groups_of(layer), LINEAR if isinstance(layer, nn.Linear) else CHANNELS

    def entry(ranks: Sequence[int], error: float | None = None) -> LayerPlan:
        plan = replace(form, ranks=tuple(groups * rank for rank in ranks), error=error)
        return within(plan, *channels_of(layer))  # rounding may have gone beyond

    sizes = [math.log(compact_weights(layer, entry(ranks))) for ranks, _ in points]
    errors = np.log(np.maximum.accumulate([max(error, 1e-12) for _, error in points]))
    options = []
    least = layer.weight.numel()
    for (many, _), (few, _) in zip(points, points[1:] + points[-1:]):
        for step in range(BETWEEN):
            way = step / BETWEEN
            ranks = [_round(a ** (1 - way) * b**way, groups, block) for a, b in zip(many, few)]
            weights = compact_weights(layer, entry(ranks))
            if weights < least:
                # Geometric interpolation, at what the rounded ranks really weigh.
                error = math.exp(np.interp(math.log(weights), sizes[::-1], errors[::-1]))
                plan = entry(ranks, error)
                options.append(Option(plan, weights, error, used_again(layer, plan)))
                least = weights
    return options


def _round(rank: float, groups: int, block: int) -> int:
    """The rank of a group, so that that of all is a multiple of the block, or of 4, 2 if small."""
    total = rank * groups
    step = block if total >= 0.875 * block else 4
    step = math.lcm(step if total >= 8 else 2, groups) // groups
    return max(1, step * round(rank / step))
