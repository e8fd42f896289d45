"""Every layer at one factor: what a plan is compared with, and what the paper's networks had."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from ..errors import InputError
from ..kernels import PATTERNS, sparse_kernels
from .candidates import dense_layers, splits
from .plan import LayerPlan, Plan, can_shrink, compact_weights

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
        entry = _entry(layer, factor, pattern)
        if compact_weights(layer, entry) < layer.weight.numel():
            plan[name] = entry
    if not plan:
        raise InputError(f"{type(model).__name__}: it has no layer to replace by a compact one")
    return plan


def _reads_the_image(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.in_channels <= IMAGE_CHANNELS


def _entry(layer: nn.Module, factor: float, pattern: str) -> LayerPlan:
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
