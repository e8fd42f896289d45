"""Every layer at one ratio: what a plan is compared with, and what the paper's networks had."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from ..errors import InputError
from ..kernels import PATTERNS, sparse_kernels
from .candidates import dense_layers, splits
from .plan import (
    LayerPlan,
    Plan,
    can_shrink,
    check_ratio,
    choose_layers,
    compact_weights,
    ratio_plan,
)

IMAGE_CHANNELS = 4
"""A layer that reads no more channels sees the image itself: it costs little, all depends on it."""


def even_plan(
    model: nn.Module, factor: float, pattern: str = "checkerboard", exclude: Sequence[str] = ()
) -> Plan:
    """Each layer with ``factor`` times fewer weights, and so as many times fewer multiply-adds.

    All sparse kernels of a layer have one rank. What the pattern does not split, such as a 1x1
    convolution, and fully connected layers are one kernel of low rank. Layers that read the image,
    and those that no factor makes smaller (depthwise ones), stay.

    Args:
        exclude: names of layers that stay besides, such as those that give the answers.

    Raises:
        InputError: a factor of 1 or less, an unknown pattern, or no layer to replace.
    """
    if not isinstance(factor, (int, float)) or not 1 < factor < math.inf:
        raise InputError(f"uniform {factor}: must be a factor above 1")
    if pattern not in PATTERNS:
        raise InputError(f"there is no pattern {pattern!r}; one of {', '.join(PATTERNS)}")
    plan = {}
    for name, layer in dense_layers(model).items():
        if name in exclude or not can_shrink(layer) or _reads_the_image(layer):
            continue
        entry = _even_entry(layer, factor, pattern)
        if compact_weights(layer, entry) < layer.weight.numel():
            plan[name] = entry
    if not plan:
        raise InputError(f"{type(model).__name__}: it has no layer to replace by a compact one")
    return plan


def _reads_the_image(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.in_channels <= IMAGE_CHANNELS


def _even_entry(layer: nn.Module, factor: float, pattern: str) -> LayerPlan:
    if isinstance(layer, nn.Linear):
        return LayerPlan((_rank(layer, LayerPlan((1,)), factor),))
    if layer.weight[0, 0].numel() == 1 or not splits(pattern, layer.kernel_size):
        pattern = "whole"
    count = len(sparse_kernels(pattern, layer.kernel_size))
    rank = layer.groups * _rank(layer, LayerPlan((layer.groups,) * count, pattern), factor)
    return LayerPlan((rank,) * count, pattern)


def _rank(layer: nn.Module, least: LayerPlan, factor: float) -> int:
    """How many times the weights of rank 1 are at most those that are left."""
    return max(1, int(layer.weight.numel() / factor / compact_weights(layer, least)))


def uniform_plan(
    model: nn.Module,
    pattern: str,
    ratio: float,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    scope: str = "",
    windows_only: bool = False,
) -> Plan:
    """Every layer at one ratio, where that makes it smaller.

    Convolutions get ranks ``out_channels / ratio``. What the pattern does not split, and 1x1
    convolutions and fully connected layers, are one kernel whose rank is the smaller of their two
    numbers of channels by ``ratio``: half the size at a ratio of 4, if not less. ``windows_only``
    leaves out whatever the pattern does not split.

    ``include`` and ``exclude`` are shell-style patterns of names in the whole model, of which
    ``model`` is the part at ``scope`` ("backbone."). One that lies in the scope and matches no
    layer is an error.

    Raises:
        InputError: unknown pattern, a ratio that is not positive, a name that matches nothing.
    """
    layers = {
        scope + name: layer
        for name, layer in dense_layers(model).items()
        if isinstance(layer, nn.Conv2d) or not windows_only
    }
    plan = {}
    for name, layer in choose_layers(layers, include, exclude, scope).items():
        if not windows_only:
            entry = _uniform_entry(name, layer, pattern, ratio)
        elif pattern not in PATTERNS or splits(pattern, layer.kernel_size):
            entry = ratio_plan(name, layer, pattern, ratio)
        else:
            continue
        if can_shrink(layer) and compact_weights(layer, entry) < layer.weight.numel():
            plan[name[len(scope) :]] = entry
    return plan


def _uniform_entry(name: str, layer: nn.Module, pattern: str, ratio: float) -> LayerPlan:
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        check_ratio(name, ratio)
        return LayerPlan((max(1, round(min(inputs, outputs) / ratio)),))
    if layer.weight[0, 0].numel() > 1 and (
        pattern not in PATTERNS or splits(pattern, layer.kernel_size)
    ):
        return ratio_plan(name, layer, pattern, ratio)
    check_ratio(name, ratio)
    per_group = max(1, round(min(inputs, outputs // layer.groups) / ratio))
    return LayerPlan((per_group * layer.groups,), "whole")
