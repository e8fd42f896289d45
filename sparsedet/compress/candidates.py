"""Which layers of a model can become compact, and why the others cannot."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..kernels import PATTERNS, sparse_kernels
from ..layers import LowRankLinear, SparseFusionConv2d

KINDS = (nn.Conv2d, nn.Linear)


def can_fuse(module: nn.Module, pattern: str | None = None) -> bool:
    """Whether a sparse fusion, of this pattern or of any, can take the place of ``module``."""
    if (
        not isinstance(module, nn.Conv2d)
        or isinstance(module.padding, str)
        or module.padding_mode != "zeros"
    ):
        return False
    return any(splits(p, module.kernel_size) for p in ([pattern] if pattern else PATTERNS))


def splits(pattern: str, kernel_size: tuple[int, int]) -> bool:
    """Whether a pattern can split a window of that size."""
    try:
        sparse_kernels(pattern, kernel_size)
    except ValueError:
        return False
    return True


def compact_layers(model: nn.Module) -> set[str]:
    """Names of the layers that are compact already, and of all modules inside them."""
    kinds = (LowRankLinear, SparseFusionConv2d)
    outer = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    inside = {f"{name}.{inner}" for name, m in outer.items() for inner, _ in m.named_modules()}
    return inside.union(outer)


def dense_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and fully connected layers that can become compact, by name."""
    compact, alone = compact_layers(model), left_alone(model)
    return {
        name: module
        for name, module in model.named_modules()
        if name not in compact and name not in alone and isinstance(module, KINDS)
    }


def left_alone(model: nn.Module) -> dict[str, str]:
    """The layers with many weights that no compact layer can replace: why, by name."""
    holders = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    inside_attention = {
        id(child)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for child in module.children()
    }
    compact = compact_layers(model)
    reasons = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name in compact or not isinstance(weight, torch.Tensor):
            continue
        if is_lazy(weight):
            reason = "its weights are not made before its first call"
        elif not isinstance(module, KINDS):
            reason = _other_kind(module)
        elif not isinstance(weight, nn.Parameter):
            reason = "its weights are computed from others"
        elif id(module) in inside_attention:
            reason = "attention reads its weights directly"
        elif holders[id(weight)] > 1:
            reason = "it shares its weights with another layer"
        elif isinstance(module, nn.Conv2d) and not can_fuse(module):
            reason = f"padding {module.padding_mode} {module.padding} has no sparse form"
        else:
            continue
        if reason:
            reasons[name] = reason
    return reasons


def why_it_stays(model: nn.Module, name: str) -> str:
    """Of a module that is not one of :func:`dense_layers`, what it is and why."""
    kind = type(model.get_submodule(name)).__name__
    reason = left_alone(model).get(name)
    return f"a {kind} that {f'must stay: {reason}' if reason else 'cannot be replaced'}"


def _other_kind(module: nn.Module) -> str:
    """Why a layer that is neither a convolution nor fully connected stays; "" for small ones."""
    if module.weight.dim() < 2 or isinstance(module, nn.Embedding):
        return ""
    kind = type(module).__name__
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return f"{kind}, transposed"
    return f"{kind}, which has no sparse form"
