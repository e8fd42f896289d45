"""What each layer becomes: a pattern and a rank for every sparse kernel, or one low rank."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from ..errors import InputError
from ..kernels import PATTERNS, fusion_weights, sparse_kernels


@dataclass(frozen=True)
class LayerPlan:
    """``pattern`` and the rank of each of its sparse kernels; without pattern, one low rank."""

    ranks: tuple[int, ...]
    pattern: str | None = None


Plan = dict[str, LayerPlan]
"""Module name, as in ``model.named_modules()``, to what the module becomes."""


def can_fuse(module: nn.Module) -> bool:
    """Whether a sparse fusion can take the place of ``module``."""
    return (
        isinstance(module, nn.Conv2d)
        and min(module.kernel_size) > 1
        and not module.transposed
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


def uniform_plan(
    model: nn.Module,
    pattern: str,
    ratio: float,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    scope: str = "",
) -> Plan:
    """Every convolution wider than 1x1 at ranks ``out_channels / ratio``, where that is smaller.

    ``include`` and ``exclude`` are shell-style patterns of names in the whole model, of which
    ``model`` is the part at ``scope`` ("backbone."). One that lies in the scope and matches no
    convolution is an error.

    Raises:
        InputError: unknown pattern, a ratio that is not positive, a name that matches nothing.
    """
    candidates = {scope + name: m for name, m in model.named_modules() if can_fuse(m)}
    for glob in (*include, *exclude):
        if glob.startswith(scope):
            _matching(glob, candidates)
    plan = {}
    for name, conv in candidates.items():
        if any(fnmatchcase(name, glob) for glob in exclude):
            continue
        if not any(fnmatchcase(name, glob) for glob in include):
            continue
        entry = _fusion_plan(name, conv, {"pattern": pattern, "ratio": ratio})
        kernels = sparse_kernels(pattern, conv.kernel_size)
        weights = fusion_weights(
            conv.in_channels, conv.out_channels, kernels, entry.ranks, conv.groups
        )
        if weights < conv.weight.numel():
            plan[name[len(scope) :]] = entry
    return plan


def resolve_plan(model: nn.Module, entries: Mapping[str, Mapping]) -> Plan:
    """A plan from its readable form.

    ``entries`` maps a module name, or a shell-style pattern of names, to

    - ``{pattern: checkerboard, ranks: [32, 32]}`` or ``{pattern: checkerboard, ratio: 4}`` (ranks
      ``out_channels / 4``) for a convolution,
    - ``{rank: 96}`` for a fully connected layer.

    Raises:
        InputError: an entry that names no layer, or that does not fit its layer.
    """
    modules = {name: m for name, m in model.named_modules() if name}
    plan: Plan = {}
    for glob, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise InputError(f"plan entry {glob!r} must be a mapping, not {entry!r}")
        for name in _matching(glob, modules):
            module = modules[name]
            if isinstance(module, nn.Linear):
                plan[name] = _low_rank_plan(name, module, entry)
            elif can_fuse(module):
                plan[name] = _fusion_plan(name, module, entry)
            else:
                kind = type(module).__name__
                raise InputError(f"plan entry {glob!r}: {name} is a {kind} that cannot be replaced")
    return plan


def _matching(glob: str, modules: Mapping[str, nn.Module]) -> list[str]:
    names = [name for name in modules if fnmatchcase(name, glob)]
    if not names:
        close = difflib.get_close_matches(glob, modules, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise InputError(f"plan entry {glob!r}: the model has no such layer{hint}")
    return names


def _fusion_plan(name: str, conv: nn.Conv2d, entry: Mapping) -> LayerPlan:
    _check_keys(name, entry, {"pattern", "ranks"}, {"pattern", "ratio"})
    pattern = entry["pattern"]
    if pattern not in PATTERNS:
        known = ", ".join(PATTERNS)
        raise InputError(f"plan entry {name!r}: unknown pattern {pattern!r}; one of {known}")
    count = len(sparse_kernels(pattern, conv.kernel_size))
    if "ratio" in entry:
        ratio = entry["ratio"]
        if not isinstance(ratio, (int, float)) or ratio <= 0:
            raise InputError(f"plan entry {name!r}: ratio must be a positive number, not {ratio!r}")
        per_group = max(1, round(conv.out_channels / ratio / conv.groups))
        return LayerPlan((per_group * conv.groups,) * count, pattern)
    ranks = entry["ranks"]
    if not _are_ranks(ranks) or any(rank % conv.groups for rank in ranks):
        raise InputError(
            f"plan entry {name!r}: ranks must be positive multiples of {conv.groups}, not {ranks!r}"
        )
    if len(ranks) != count:
        raise InputError(f"plan entry {name!r}: {pattern} takes {count} ranks, not {len(ranks)}")
    return LayerPlan(tuple(ranks), pattern)


def _low_rank_plan(name: str, linear: nn.Linear, entry: Mapping) -> LayerPlan:
    _check_keys(name, entry, {"rank"})
    rank, largest = entry["rank"], min(linear.in_features, linear.out_features)
    if not _are_ranks([rank]) or rank > largest:
        raise InputError(f"plan entry {name!r}: rank must be 1 to {largest}, not {rank!r}")
    return LayerPlan((rank,))


def _are_ranks(ranks) -> bool:
    return isinstance(ranks, (list, tuple)) and all(type(r) is int and r > 0 for r in ranks)


def _check_keys(name: str, entry: Mapping, *allowed: set[str]) -> None:
    if set(entry) not in allowed:
        forms = " or ".join("{" + ", ".join(sorted(keys)) + "}" for keys in allowed)
        raise InputError(f"plan entry {name!r}: keys must be {forms}, not {sorted(entry)}")
