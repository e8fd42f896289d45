"""A dense layer as one matrix, from a patch of its input to its outputs there.

A patch holds all that one output position sees: the taps of the window in row-major order, and in
each tap the input channels. A fully connected layer is a window of one tap, and its positions are
the rows of its input. A convolution with groups is several such layers, each of which sees a part
of the channels and gives a part of the outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..kernels import SparseKernel


def weight_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A layer's weight as (outputs, taps * input channels of a group)."""
    weight = weight.detach()
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def kernel_columns(kernel: SparseKernel, conv: nn.Conv2d) -> torch.Tensor:
    """The columns of ``weight_matrix(conv.weight)`` of a sparse kernel, in its tap order."""
    taps = torch.tensor([i * conv.kernel_size[1] + j for i, j in kernel.taps])
    channels = conv.in_channels // conv.groups
    return (taps[:, None] * channels + torch.arange(channels)).flatten()


def groups_of(layer: nn.Conv2d | nn.Linear) -> int:
    """How many groups a layer has; a fully connected one is one."""
    return getattr(layer, "groups", 1)


def split_patches(layer: nn.Conv2d | nn.Linear, patches: torch.Tensor) -> list[torch.Tensor]:
    """Of patches (P, taps * input channels), what each group sees, (P, taps * its channels)."""
    groups = groups_of(layer)
    if groups == 1:
        return [patches]
    taps = layer.weight[0, 0].numel()
    parts = patches.unflatten(1, (taps, groups, -1)).unbind(2)
    return [part.flatten(1) for part in parts]


def outputs_at(layer: nn.Conv2d | nn.Linear, patches: torch.Tensor) -> torch.Tensor:
    """What a layer gives, (P, outputs), for patches (P, taps * input channels), float32."""
    bias = None if layer.bias is None else layer.bias.float()
    weight, groups = weight_matrix(layer.weight).float(), groups_of(layer)
    if groups == 1:
        return F.linear(patches, weight, bias)
    parts = zip(split_patches(layer, patches), weight.chunk(groups))
    outputs = torch.cat([F.linear(x, rows) for x, rows in parts], dim=1)
    return outputs if bias is None else outputs + bias


def count_patches(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> int:
    """Number of output positions of ``layer`` for the input ``x``."""
    if isinstance(layer, nn.Linear):
        return x[..., 0].numel()
    height, width = _output_size(layer, x)
    return x[..., 0, 0, 0].numel() * height * width


def take_patches(
    layer: nn.Conv2d | nn.Linear, x: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Patches at some output positions, numbered in the order (image, row, column).

    Args:
        x: what ``layer`` is called with, (N, C, H, W) or (C, H, W), or (..., features).
        positions: (P,) integers below ``count_patches(layer, x)``.

    Returns:
        (P, taps * input channels), float32.
    """
    positions = positions.to(x.device)
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])[positions].float()
    height, width = _output_size(layer, x)
    image, position = positions // (height * width), positions % (height * width)
    rows = _inputs(position // width, layer, axis=0).repeat_interleave(layer.kernel_size[1], dim=1)
    columns = _inputs(position % width, layer, axis=1).repeat(1, layer.kernel_size[0])
    vertical, horizontal = layer.padding
    x = F.pad(x, (horizontal, horizontal, vertical, vertical)).reshape(-1, *_padded(layer, x))
    return x.permute(0, 2, 3, 1)[image[:, None], rows, columns].flatten(1).float()


def _padded(conv: nn.Conv2d, x: torch.Tensor) -> tuple[int, int, int]:
    return x.shape[-3], x.shape[-2] + 2 * conv.padding[0], x.shape[-1] + 2 * conv.padding[1]


def _output_size(conv: nn.Conv2d, x: torch.Tensor) -> list[int]:
    return [
        (size - conv.dilation[axis] * (conv.kernel_size[axis] - 1) - 1) // conv.stride[axis] + 1
        for axis, size in enumerate(_padded(conv, x)[1:])
    ]


def _inputs(outputs: torch.Tensor, conv: nn.Conv2d, axis: int) -> torch.Tensor:
    """Along one axis, the padded input coordinates (P, k) that each output coordinate reads."""
    taps = torch.arange(conv.kernel_size[axis], device=outputs.device) * conv.dilation[axis]
    return outputs[:, None] * conv.stride[axis] + taps
