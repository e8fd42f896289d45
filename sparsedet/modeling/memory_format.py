"""The memory format in which sparse fusions run best, for a whole trunk."""

from __future__ import annotations

import torch
from torch import nn

TRUNKS = ("backbone", "roi_heads.res5", "network")


def run_trunks_in_channels_last_(model: nn.Module) -> nn.Module:
    """Let what enters the trunks of a detectron2 model be channels-last, on CPUs.

    A sparse fusion gives the format that it gets. So no layer of the trunk converts anything then,
    and boxes are cut out of its features in the plain format, which heads may rely on.
    """
    modules = dict(model.named_modules())
    for name in TRUNKS:
        if name in modules:
            enter_in_channels_last_(modules[name])
    return model


def enter_in_channels_last_(module: nn.Module) -> nn.Module:
    """Let the images (N, C, H, W) that a module is called with be channels-last, on CPUs.

    What is no such tensor goes in as it is.
    """
    module.register_forward_pre_hook(_convert)
    return module


def _convert(module: nn.Module, args: tuple) -> tuple:
    x, *rest = args
    if isinstance(x, torch.Tensor) and x.dim() == 4 and x.device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    return (x, *rest)
