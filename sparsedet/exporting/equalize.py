"""Like ranges for the channels inside compact layers, so that one scale of 8 bits serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..hooks import attached
from ..layers import LowRankLinear, SparseFusionConv2d

BALANCE = 0.75
"""Of activations against weights. For a VGG-16, 0.5 and 1 leave larger errors in its features."""


@torch.no_grad()
def equalize_(model: nn.Module, inputs: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Scale the channels between the two halves of each compact layer; ``model`` gives the same.

    Some of these channels reach a hundred times as far as others. Channel j is divided by
    ``s_j = max|x_j|^a / max|w_j|^(1 - a)`` and the weights w_j that read it are multiplied by it
    (Xiao et al., SmoothQuant, arXiv 2211.10438, eq. 4), a is BALANCE and max|x_j| the mean over the
    inputs. Convolutions with groups stay as they are.

    Args:
        forward: runs ``model`` on one of ``inputs``.
    """
    readers = {}
    for layer in model.modules():
        if isinstance(layer, SparseFusionConv2d) and layer.groups == 1:
            readers[layer.fusion] = layer
        elif isinstance(layer, LowRankLinear):
            readers[layer.expand] = layer
    reach: dict[nn.Module, torch.Tensor] = {}

    def look(reader, args):
        x = args[0].transpose(0, 1).flatten(1)  # channels first, of images and of boxes alike
        if x.numel():
            reach[reader] = reach.get(reader, 0) + x.abs().amax(1)

    with attached(reader.register_forward_pre_hook(look) for reader in readers):
        for x in inputs if readers else ():
            forward(x)
    for reader, most in reach.items():
        weights = reader.weight.flatten(1).abs().amax(0)
        scale = _relative(most) ** BALANCE / _relative(weights) ** (1 - BALANCE)
        readers[reader].rescale_(scale)


def _relative(x: torch.Tensor) -> torch.Tensor:
    """To the greatest; a channel that is never used counts as a very small one."""
    return (x / x.max().clamp(min=torch.finfo(x.dtype).tiny)).clamp(min=1e-4)
