"""The same pattern and ratio in every layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..kernels import PATTERNS
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
