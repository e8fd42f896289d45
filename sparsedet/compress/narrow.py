"""Layers with fewer channels, made from a layer with all of them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .plan import LayerPlan, channels_of, planned_channels

CHANNELWISE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.PReLU)
"""What works on each channel by itself and has numbers of its own for each."""


def is_channelwise(module: nn.Module) -> bool:
    """Whether :func:`keep_channels` can narrow it; frozen batch norms, of any library, included."""
    return isinstance(module, CHANNELWISE) or type(module).__name__ == "FrozenBatchNorm2d"


@torch.no_grad()
def keep_channels(module: nn.Module, kept: torch.Tensor) -> nn.Module:
    """A copy of a channelwise module for some of its channels."""
    module = copy.deepcopy(module)
    for name, numbers in list(module.named_parameters()) + list(module.named_buffers()):
        if numbers.dim() == 1 and len(numbers) > 1:
            _set(module, name, numbers[kept.to(numbers.device)])
    for name in ("num_features", "num_parameters"):
        if getattr(module, name, 1) > 1:
            setattr(module, name, len(kept))
    return module


@torch.no_grad()
def keep_outputs(layer: nn.Module, kept: torch.Tensor) -> nn.Module:
    """A copy of a dense layer that gives some of its outputs; its own norm is narrowed too."""
    layer = copy.deepcopy(layer)
    for name in ("weight", "bias"):
        numbers = getattr(layer, name)
        if numbers is not None:
            _set(layer, name, numbers[kept.to(numbers.device)])
    for parent in list(layer.modules()):
        for name, child in parent.named_children():
            if is_channelwise(child):
                setattr(parent, name, keep_channels(child, kept))
    return _with_channels(layer)


@torch.no_grad()
def read_fewer(
    layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> nn.Module:
    """A copy of a dense layer with other weights, for fewer input channels.

    Args:
        weight: of the shape of the layer's own but for the input channels.
        bias: None leaves the layer's own.
    """
    layer = copy.deepcopy(layer)
    _set(layer, "weight", weight.to(layer.weight))
    if bias is not None:
        layer.bias.copy_(bias)
    return _with_channels(layer)


def first_channels(layer: nn.Module, entry: LayerPlan) -> nn.Module:
    """A dense layer in the numbers of channels of a plan, where its weights do not matter yet."""
    inputs, outputs = planned_channels(layer, entry)
    if (inputs, outputs) == channels_of(layer):
        return layer
    kept = torch.arange(outputs)
    return read_fewer(keep_outputs(layer, kept), layer.weight[:outputs, :inputs])


def _set(module: nn.Module, name: str, numbers: torch.Tensor) -> None:
    old = getattr(module, name)
    numbers = numbers.detach().clone()
    if isinstance(old, nn.Parameter):
        numbers = nn.Parameter(numbers, requires_grad=old.requires_grad)
    setattr(module, name, numbers)


def _with_channels(layer: nn.Module) -> nn.Module:
    """Its numbers of channels as its weight has them."""
    outputs, inputs = layer.weight.shape[:2]
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"in_{kind}", inputs)
    setattr(layer, f"out_{kind}", outputs)
    return layer
