"""What each layer becomes: a pattern and a rank for every sparse kernel, or one low rank."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from torch import nn

from ..errors import InputError
from ..kernels import (
    PATTERNS,
    fusion_weights,
    low_rank_weights,
    sparse_kernels,
    tucker_weights,
)
from .candidates import splits


@dataclass(frozen=True)
class LayerPlan:
    """``pattern`` and the rank of each of its sparse kernels; without pattern, one low rank.

    Attributes:
        ranks: none for a layer that stays dense and becomes narrower.
        error: what a planner expects of the layer by itself: the mean square error of its output,
            as a share of the output's variance.
        in_channels, out_channels: numbers of channels (or features) of a layer that becomes
            narrower; None: as many as the dense layer's.
        channel_rank, positions: of a fully connected layer that reads flattened maps, to how many
            channels they are mixed first, and at how many positions; see :class:`TuckerLinear`.
        channelwise: names of the modules between a layer of fewer outputs and its reader that have
            numbers of their own for each channel, such as a batch norm, and become narrower too.
    """

    ranks: tuple[int, ...] = ()
    pattern: str | None = None
    error: float | None = field(default=None, compare=False)
    in_channels: int | None = None
    out_channels: int | None = None
    channelwise: tuple[str, ...] = ()
    channel_rank: int | None = None
    positions: int | None = None

    @property
    def form(self) -> tuple[str | None, int | None]:
        """What plans of one layer have in common that differ in ranks alone."""
        return self.pattern, self.channel_rank

    def __str__(self) -> str:
        """``checkerboard 32 + 24``, ``rank 96``, or ``rows 16 + 16, 32 in, 48 out``."""
        parts = [f"{self.pattern or 'rank'} {' + '.join(map(str, self.ranks))}"]
        if not self.ranks:
            parts = ["dense"]
        if self.channel_rank:
            parts[0] += f" of {self.channel_rank} channels"
        for count, side in ((self.in_channels, "in"), (self.out_channels, "out")):
            if count is not None:
                parts.append(f"{count} {side}")
        return ", ".join(parts)


Plan = dict[str, LayerPlan]
"""Module name, as in ``model.named_modules()``, to what the module becomes."""


def compact_weights(layer: nn.Module, entry: LayerPlan) -> int:
    """Weights of what ``layer`` becomes."""
    inputs, outputs = planned_channels(layer, entry)
    if not entry.ranks:
        return layer.weight.numel() * inputs * outputs // math.prod(channels_of(layer))
    if entry.channel_rank:
        channels = inputs // entry.positions
        return tucker_weights(
            channels, entry.positions, outputs, entry.ranks[0], entry.channel_rank
        )
    if isinstance(layer, nn.Linear):
        return low_rank_weights(inputs, outputs, entry.ranks[0])
    kernels = sparse_kernels(entry.pattern, layer.kernel_size)
    return fusion_weights(inputs, outputs, kernels, entry.ranks, layer.groups)


def used_again(layer: nn.Module, entry: LayerPlan) -> int:
    """Multiply-adds of what ``layer`` becomes, per output position, beyond one for each weight.

    The weights that mix the channels of maps are used at each of their positions.
    """
    if not entry.channel_rank:
        return 0
    channels = planned_channels(layer, entry)[0] // entry.positions
    return (entry.positions - 1) * entry.channel_rank * channels


def channels_of(layer: nn.Module) -> tuple[int, int]:
    """Of a convolution, or features of a fully connected layer: (in, out)."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def planned_channels(layer: nn.Module, entry: LayerPlan) -> tuple[int, int]:
    """What ``layer`` will have: (in, out)."""
    inputs, outputs = channels_of(layer)
    return entry.in_channels or inputs, entry.out_channels or outputs


def within(entry: LayerPlan, inputs: int, outputs: int) -> LayerPlan:
    """The plan with ranks no larger than so many features allow; only of a fully connected layer.

    A convolution may have any rank: more than it needs is waste.
    """
    if entry.pattern is not None or not entry.ranks:
        return entry
    channel_rank = entry.channel_rank
    if channel_rank:
        channel_rank = min(channel_rank, inputs // entry.positions)
        inputs = channel_rank * entry.positions
    return replace(entry, ranks=(min(*entry.ranks, inputs, outputs),), channel_rank=channel_rank)


def check_within(name: str, layer: nn.Module, entry: LayerPlan) -> None:
    """Raise InputError, of ``name``, where a narrower layer has too few features for its ranks."""
    most = within(entry, *planned_channels(layer, entry))
    if most != entry:
        raise InputError(f"plan entry {name!r}: {entry} is too much; at most {most}")


def can_shrink(layer: nn.Module, patterns: Sequence[str] = tuple(PATTERNS)) -> bool:
    """Whether a compact form has fewer weights. A depthwise convolution has no channels to fuse."""
    if isinstance(layer, nn.Linear):
        return compact_weights(layer, LayerPlan((1,))) < layer.weight.numel()
    if layer.groups == layer.in_channels > 1:
        return False
    forms = [
        LayerPlan((layer.groups,) * len(sparse_kernels(pattern, layer.kernel_size)), pattern)
        for pattern in patterns
        if splits(pattern, layer.kernel_size)
    ]
    return any(compact_weights(layer, form) < layer.weight.numel() for form in forms)


def choose_layers(
    layers: Mapping[str, nn.Module],
    include: Sequence[str],
    exclude: Sequence[str],
    scope: str = "",
) -> dict[str, nn.Module]:
    """Those of ``layers`` whose name matches ``include`` and not ``exclude``, shell-style patterns.

    Raises:
        InputError: a pattern that lies in the scope and matches no layer.
    """
    for glob in (*include, *exclude):
        if glob.startswith(scope):
            matching_names(glob, layers)
    return {
        name: layer
        for name, layer in layers.items()
        if any(fnmatchcase(name, glob) for glob in include)
        and not any(fnmatchcase(name, glob) for glob in exclude)
    }


def matching_names(glob: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """The names that match a shell-style pattern.

    Raises:
        InputError: there are none.
    """
    names = [name for name in modules if fnmatchcase(name, glob)]
    if not names:
        close = difflib.get_close_matches(glob, modules, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise InputError(f"{glob!r}: the model has no such layer{hint}")
    return names


def ratio_plan(name: str, conv: nn.Conv2d, pattern: str, ratio: float) -> LayerPlan:
    """Every sparse kernel of the pattern at rank ``out_channels / ratio``.

    Raises:
        InputError: a pattern that does not exist or fit, a ratio that is not positive; of ``name``.
    """
    check_pattern(name, conv, pattern)
    check_ratio(name, ratio)
    least = conv.out_channels / largest_rank(conv)
    if ratio < least:
        raise InputError(f"plan entry {name!r}: ratio {ratio!r} is below the least, {least:.3g}")
    per_group = max(1, round(conv.out_channels / ratio / conv.groups))
    count = len(sparse_kernels(pattern, conv.kernel_size))
    return LayerPlan((per_group * conv.groups,) * count, pattern)


def check_ratio(name: str, ratio: float) -> None:
    """Raise InputError, of ``name``, unless the ratio is a positive number."""
    if not isinstance(ratio, (int, float)) or not 0 < ratio < math.inf:
        raise InputError(f"plan entry {name!r}: ratio must be a positive number, not {ratio!r}")


def largest_rank(conv: nn.Conv2d) -> int:
    """Above which a rank of a sparse kernel can only waste memory."""
    return max(conv.out_channels, conv.in_channels * math.prod(conv.kernel_size))


def check_pattern(name: str, conv: nn.Conv2d, pattern: str) -> None:
    """Raise InputError unless the pattern exists and splits the window of ``conv``."""
    if not isinstance(pattern, str) or pattern not in PATTERNS:
        known = ", ".join(PATTERNS)
        raise InputError(f"plan entry {name!r}: unknown pattern {pattern!r}; one of {known}")
    if not splits(pattern, conv.kernel_size):
        k_h, k_w = conv.kernel_size
        raise InputError(f"plan entry {name!r}: {pattern} does not split its {k_h}x{k_w} window")
