"""Fit one compact layer to what its dense twin puts out, from samples of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..layers import LowRankLinear, SparseFusionConv2d, TuckerLinear
from .low_rank import LowRankRegression
from .maps import ChannelBasis, mixed
from .moments import Moments, Statistics
from .patches import groups_of, kernel_columns, split_patches, weight_matrix
from .projection import balance, set_low_rank, set_tucker
from .regression import Regression
from .sensitivity import Sensitivity

TURNS = 20
"""Alternations over the sparse kernels; more gain less than a hundredth of the error."""

PATCHES = 10
"""Patches for a convolution, as a multiple of the numbers in one: more improve little on unseen
images, and fewer begin to fit only these images."""

ROWS = 4096
"""Samples for a fully connected layer, all of which are held: 411 MB for VGG's fc6."""


def wanted_samples(layer: nn.Conv2d | nn.Linear, compact: bool) -> int:
    """About how many samples to fit a layer to, or its compact form."""
    if compact and isinstance(layer, nn.Linear):
        return ROWS
    return max(PATCHES * layer.weight[0].numel(), ROWS)


class ConvolutionFit:
    """A sparse fusion in the place of a convolution; each group of channels is fitted by itself.

    ``compact`` comes with its weights-alone projection, and keeps it in the rare case that this is
    the better of the two on the samples.

    Args:
        sensitivity: how the errors of the outputs count that are made small, and given.

    Attributes:
        size: numbers in a patch that one group sees.
        work: multiply-adds of the whole fit.
        samples: how many were added.
        error, error_alone: as in :class:`LayerResult`, once solved.
    """

    def __init__(self, dense: nn.Conv2d, compact: SparseFusionConv2d, sensitivity: Sensitivity):
        self.dense, self.compact = dense, compact
        self.sensitivities = sensitivity.split(dense.groups)
        outputs, self.size = dense.out_channels, dense.weight[0].numel()
        rows = wanted_samples(dense, True) + self.size + 2 * TURNS
        self.work = self.size * (self.size * dense.groups + outputs) * rows
        self.samples = 0
        self.moments = [Moments(centered=dense.bias is not None) for _ in range(dense.groups)]
        self.error = self.error_alone = None

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Patches of the compact network's input and the dense layer's outputs there."""
        self.samples += len(x)
        parts = zip(split_patches(self.dense, x), y.chunk(self.dense.groups, dim=1))
        for moments, sensitivity, (x, y) in zip(self.moments, self.sensitivities, parts):
            moments.add(x, sensitivity.weigh(y.T).T)

    def solve(self) -> None:
        """Set the compact layer."""
        groups = self.dense.groups
        blocks = [kernel_columns(kernel, self.dense) for kernel in self.compact.kernels]
        weights = weight_matrix(self.dense.weight).chunk(groups)
        projected = weight_matrix(self.compact.dense_weight()).chunk(groups)
        errors = []
        for group, sensitivity in enumerate(self.sensitivities):
            statistics = self.moments[group].statistics()
            self.moments[group] = None  # as large as a covariance
            weight = sensitivity.weigh(weights[group].to(statistics.xx))
            statistics.regularize_(weight)
            alone = sensitivity.weigh(projected[group].to(weight))
            offset = self._offset(group, alone, statistics)
            error_alone = statistics.error(alone, offset)

            regression = Regression(statistics.xx, statistics.yx, statistics.yy, weight, blocks)
            regression.cut([rank // groups for rank in self.compact.ranks])
            regression.improve(TURNS)
            factors = regression.weights()
            fitted = torch.zeros_like(weight)
            for block, (fusion, sparse) in zip(blocks, factors):
                fitted[:, block] += fusion @ sparse

            error, least = statistics.error(fitted), statistics.error(alone)
            if error <= least:
                for m, (fusion, sparse) in enumerate(factors):
                    self._set_kernel(m, group, *balance(sensitivity.unweigh(fusion), sparse))
            else:
                error, fitted = least, alone
            if offset is not None:
                bias = sensitivity.unweigh(statistics.y - fitted @ statistics.x)
                self.compact.fusion.bias.chunk(groups)[group].copy_(bias)
            errors.append((error, error_alone, statistics.variance.item()))
        self.error, self.error_alone = _mean_errors(errors)

    def _offset(
        self, group: int, weight: torch.Tensor, statistics: Statistics
    ) -> torch.Tensor | None:
        if self.dense.bias is None:
            return None
        bias = self.dense.bias.chunk(self.dense.groups)[group]
        bias = self.sensitivities[group].weigh(bias.to(weight))
        return weight @ statistics.x + bias - statistics.y

    def _set_kernel(self, m: int, group: int, fusion: torch.Tensor, sparse: torch.Tensor) -> None:
        # A rank above that of the regression stores zeros.
        spare = self.compact.ranks[m] // self.dense.groups - len(sparse)
        fusion = torch.cat([fusion, fusion.new_zeros(len(fusion), spare)], dim=1)
        sparse = torch.cat([sparse, sparse.new_zeros(spare, sparse.shape[1])])
        taps = len(self.compact.kernels[m].taps)
        sparse = sparse.unflatten(1, (taps, -1)).transpose(1, 2)
        self.compact.set_kernel(m, sparse, fusion, group)


def _mean_errors(errors: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Of (error, error alone, variance) of each group, both errors of the whole layer."""
    total = sum(variance for *_, variance in errors)
    if len(errors) == 1 or not total:
        return errors[0][:2]
    return tuple(sum(e[i] * e[2] for e in errors) / total for i in range(2))


class LinearFit:
    """A low-rank pair in the place of a fully connected layer, with the same attributes.

    Where that mixes the channels of maps first, it is fitted to what the mixture leaves.
    """

    def __init__(self, dense: nn.Linear, compact: LowRankLinear, sensitivity: Sensitivity):
        self.dense, self.compact, self.sensitivity = dense, compact, sensitivity
        self.size = compact.reduce.in_features  # fewer than the layer's own, of mixed channels
        self.work = self.size * (ROWS + dense.out_features) ** 2
        self.samples = 0
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.error = self.error_alone = None

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Inputs in the compact network and the dense layer's outputs, row by row."""
        self.samples += len(x)
        self._rows.append((x, y))

    def solve(self) -> None:
        """Set the compact layer."""
        bias, weigh = self.dense.bias, self.sensitivity.weigh
        x, y = (torch.cat(parts) for parts in zip(*self._rows))
        self._rows.clear()
        weight = weigh(self.dense.weight)
        alone = weigh(self.compact.expand.weight), self.compact.reduce.weight
        reads, mix = x, None
        if isinstance(self.compact, TuckerLinear):
            reads = self.compact.mixed(x)
            basis = ChannelBasis(weight, self.compact.positions, x - x.mean(0) * (bias is not None))
            mix, back = basis.directions(self.compact.channel_rank)
            x, weight = mixed(x, mix), mixed(weight, back.T)
        regression = LowRankRegression(x, weigh(y.T).T, weight, centered=bias is not None)
        mean = reads.mean(0) * (bias is not None)
        centered = torch.zeros_like(regression.mean_y)
        offset = centered
        if bias is not None:
            offset = weigh(bias) + _map(alone, mean) - regression.mean_y
        self.error_alone = regression.error(*alone, offset, reads - mean)

        factors = regression.factors(self.compact.rank)
        self.error = regression.error(*factors, centered)
        least = regression.error(*alone, centered, reads - mean)
        if self.error <= least:
            self._set(self.sensitivity.unweigh(factors[0]), factors[1], mix)
            mean = regression.mean_x
        else:
            self.error, factors = least, alone
        if bias is not None:
            offset = regression.mean_y - _map(factors, mean)
            self.compact.expand.bias.copy_(self.sensitivity.unweigh(offset))

    def _set(self, expand: torch.Tensor, reduce: torch.Tensor, mix: torch.Tensor | None) -> None:
        if mix is None:
            set_low_rank(self.compact, expand, reduce)
        else:
            set_tucker(self.compact, expand, reduce, mix)


def _map(factors: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    expand, reduce = factors
    return expand.double() @ (reduce.to(x) @ x).double()


class DenseFit:
    """New weights for a dense layer, held to those that it has, with the same attributes."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, sensitivity: Sensitivity):
        self.layer, self.sensitivity = layer, sensitivity
        outputs, self.size = len(layer.weight), layer.weight[0].numel()
        rows = wanted_samples(layer, False) + self.size
        self.work = self.size * (self.size + outputs) * rows
        self.samples = 0
        self.moments = Moments(centered=layer.bias is not None)
        self.error = self.error_alone = None

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Patches of what the layer now sees, and the outputs that it is to give there."""
        self.samples += len(x)
        self.moments.add(x, self.sensitivity.weigh(y.T).T)

    def solve(self) -> None:
        """Set the layer."""
        statistics = self.moments.statistics()
        del self.moments  # as large as a covariance
        weigh, unweigh, bias = self.sensitivity.weigh, self.sensitivity.unweigh, self.layer.bias
        alone = weigh(weight_matrix(self.layer.weight).to(statistics.xx))
        statistics.regularize_(alone)
        root = torch.linalg.cholesky(statistics.xx)
        fitted = torch.cholesky_solve(statistics.yx.T, root).T
        offset = None
        if bias is not None:
            offset = alone @ statistics.x + weigh(bias.to(alone)) - statistics.y
            bias.copy_(unweigh(statistics.y - fitted @ statistics.x))
        self.error_alone, self.error = statistics.error(alone, offset), statistics.error(fitted)
        fitted = unweigh(fitted)
        if isinstance(self.layer, nn.Conv2d):
            fitted = fitted.unflatten(1, (*self.layer.kernel_size, -1)).permute(0, 3, 1, 2)
        self.layer.weight.copy_(fitted)


Fit = ConvolutionFit | LinearFit | DenseFit


def layer_fit(dense: nn.Module, compact: nn.Module, sensitivity: Sensitivity) -> Fit | None:
    """How to calibrate ``compact``, which is a copy of ``dense`` where that is to stay dense.

    None for a grouped convolution that stays dense: it keeps its weights.
    """
    if type(compact) is type(dense):
        return DenseFit(compact, sensitivity) if groups_of(dense) == 1 else None
    return (LinearFit if isinstance(dense, nn.Linear) else ConvolutionFit)(
        dense, compact, sensitivity
    )
