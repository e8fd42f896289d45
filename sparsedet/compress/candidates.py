"""Which layers of a model can become compact."""

from __future__ import annotations

from torch import nn

from ..kernels import PATTERNS, sparse_kernels
from ..layers import LowRankLinear, SparseFusionConv2d


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
    compact = compact_layers(model)
    return {
        name: module
        for name, module in model.named_modules()
        if name not in compact and (isinstance(module, nn.Linear) or can_fuse(module))
    }
