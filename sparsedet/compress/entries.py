"""The readable form of a plan, as it stands in configs and in ``plan.yaml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from ..errors import InputError
from ..files import replacing
from ..kernels import sparse_kernels
from ..yaml_files import read_yaml
from .candidates import compact_layers, dense_layers, why_it_stays
from .narrow import is_channelwise
from .patches import groups_of
from .plan import (
    LayerPlan,
    Plan,
    channels_of,
    check_pattern,
    check_within,
    compact_weights,
    largest_rank,
    matching_names,
    ratio_plan,
)

HEADER = """\
# Layer by layer: the pattern and the rank of each of its sparse kernels, or one low rank; of a
# layer that reads flattened maps, to how many channels (channel_rank) these are mixed first, at
# each of their positions. The rest is only for reading: numbers of weights before and after, and
# the error that the planner expected of the layer by itself. Edit the plan and give it to
# sparsedet compress --plan.
"""

WIDTHS = {"in_channels", "out_channels", "channelwise"}
"""Keys of a layer that becomes narrower, dense or not."""

INFORMATION = {"before", "after", "error"}
"""Keys that tell the reader something and decide nothing."""


def resolve_plan(model: nn.Module, entries: Mapping[str, Mapping]) -> Plan:
    """A plan from its readable form.

    ``entries`` maps a module name, or a shell-style pattern of names, to

    - ``{pattern: checkerboard, ranks: [32, 32]}`` or ``{pattern: checkerboard, ratio: 4}`` (ranks
      ``out_channels / 4``) for a convolution,
    - ``{rank: 96}`` for a fully connected layer, or ``{rank: 96, channel_rank: 32, positions: 49}``
      for one that reads flattened maps of 49 pixels; see :class:`TuckerLinear`.

    Any of them, or an entry of its own, may hold ``out_channels: 32`` for a layer that gives fewer
    outputs, with ``channelwise: [layer1.0.bn1]`` for the norms that follow it, and ``in_channels:
    32`` for the one that reads them. :func:`compress_` finds reader and norms by itself.

    What :func:`plan_to_entries` adds for the reader may stand in either. A pattern of names passes
    over modules that are no layers, such as a convolution's batch norm.

    Raises:
        InputError: an entry that names no layer, or that does not fit its layer.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    compact, dense = compact_layers(model), dense_layers(model)
    plan: Plan = {}
    for glob, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise InputError(f"plan entry {glob!r} must be a mapping, not {entry!r}")
        names = matching_names(glob, modules)
        done = [name for name in names if name in compact]
        if done:
            raise InputError(f"plan entry {glob!r}: {done[0]} is compressed already")
        layers = [name for name in names if name in dense]
        if not layers:
            why = why_it_stays(model, names[0])
            raise InputError(f"plan entry {glob!r}: {names[0]} is {why}")
        for name in layers:
            read = _low_rank_plan if isinstance(dense[name], nn.Linear) else _fusion_plan
            plan[name] = _with_widths(name, dense[name], entry, read(name, dense[name], entry))
    for name, layer_plan in plan.items():
        for inner in layer_plan.channelwise:
            if inner not in modules or not is_channelwise(modules[inner]):
                raise InputError(f"plan entry {name!r}: channelwise: {inner!r} is no batch norm")
    return plan


def _stays_dense(entry: Mapping) -> bool:
    """Whether an entry has widths and nothing else that decides."""
    return bool(set(entry) & WIDTHS) and not set(entry) - INFORMATION - WIDTHS


def _with_widths(name: str, layer: nn.Module, entry: Mapping, plan: LayerPlan) -> LayerPlan:
    widths = {}
    for key, largest in zip(("in_channels", "out_channels"), channels_of(layer)):
        if key in entry:
            widths[key] = entry[key]
            if not _are_ranks([entry[key]]) or entry[key] > largest:
                raise InputError(
                    f"plan entry {name!r}: {key} must be 1 to {largest}, not {entry[key]!r}"
                )
    if widths and groups_of(layer) > 1:
        raise InputError(f"plan entry {name!r}: a convolution with groups keeps its channels")
    inner = entry.get("channelwise", ())
    if not isinstance(inner, (list, tuple)) or not all(isinstance(x, str) for x in inner):
        raise InputError(f"plan entry {name!r}: channelwise must be a list of names, not {inner!r}")
    if inner and "out_channels" not in entry:
        raise InputError(f"plan entry {name!r}: channelwise goes with out_channels")
    if not widths:
        return plan
    plan = replace(plan, channelwise=tuple(inner), **widths)
    check_within(name, layer, plan)
    return plan


def _fusion_plan(name: str, conv: nn.Conv2d, entry: Mapping) -> LayerPlan:
    if _stays_dense(entry):
        return LayerPlan()
    _check_keys(name, entry, {"pattern", "ranks"}, {"pattern", "ratio"})
    pattern = entry["pattern"]
    if "ratio" in entry:
        return ratio_plan(name, conv, pattern, entry["ratio"])
    check_pattern(name, conv, pattern)
    ranks, count = entry["ranks"], len(sparse_kernels(pattern, conv.kernel_size))
    if not _are_ranks(ranks) or any(rank % conv.groups for rank in ranks):
        raise InputError(
            f"plan entry {name!r}: ranks must be positive multiples of {conv.groups}, not {ranks!r}"
        )
    if max(ranks, default=0) > largest_rank(conv):
        raise InputError(
            f"plan entry {name!r}: rank {max(ranks)} is above the largest, {largest_rank(conv)}"
        )
    if len(ranks) != count:
        raise InputError(f"plan entry {name!r}: {pattern} takes {count} ranks, not {len(ranks)}")
    return LayerPlan(tuple(ranks), pattern)


def _low_rank_plan(name: str, linear: nn.Linear, entry: Mapping) -> LayerPlan:
    if _stays_dense(entry):
        return LayerPlan()
    _check_keys(name, entry, {"rank"}, {"rank", "channel_rank", "positions"})
    inputs, channel_rank, positions = linear.in_features, None, None
    if "positions" in entry:
        channel_rank, positions = entry["channel_rank"], entry["positions"]
        if not _are_ranks([positions]) or inputs % positions:
            raise InputError(
                f"plan entry {name!r}: positions must divide {inputs} features, not {positions!r}"
            )
        channels = inputs // positions
        if not _are_ranks([channel_rank]) or channel_rank > channels:
            raise InputError(
                f"plan entry {name!r}: channel_rank must be 1 to {channels}, not {channel_rank!r}"
            )
        inputs = channel_rank * positions
    rank, largest = entry["rank"], min(inputs, linear.out_features)
    if not _are_ranks([rank]) or rank > largest:
        raise InputError(f"plan entry {name!r}: rank must be 1 to {largest}, not {rank!r}")
    return LayerPlan((rank,), channel_rank=channel_rank, positions=positions)


def _are_ranks(ranks) -> bool:
    return isinstance(ranks, (list, tuple)) and all(type(r) is int and r > 0 for r in ranks)


def _check_keys(name: str, entry: Mapping, *allowed: set[str]) -> None:
    keys = set(entry) - INFORMATION - WIDTHS
    if keys not in allowed:
        forms = " or ".join("{" + ", ".join(sorted(keys)) + "}" for keys in allowed)
        raise InputError(
            f"plan entry {name!r}: keys must be {forms}, not {sorted(map(str, entry))}"
        )


def plan_to_entries(plan: Plan, model: nn.Module | None = None) -> dict[str, dict[str, Any]]:
    """The readable form of a plan, of which :func:`resolve_plan` makes the plan again.

    Args:
        model: the dense model that the plan is for. With it, each entry tells the layer's number of
            weights ``before`` and ``after``, and its expected ``error`` where the plan knows it.
    """
    entries = {}
    for name, layer_plan in plan.items():
        entry: dict[str, Any] = {}
        if layer_plan.pattern is not None:
            entry = {"pattern": layer_plan.pattern, "ranks": list(layer_plan.ranks)}
        elif layer_plan.ranks:
            entry = {"rank": layer_plan.ranks[0]}
        for key in ("channel_rank", "positions", "in_channels", "out_channels"):
            if getattr(layer_plan, key) is not None:
                entry[key] = getattr(layer_plan, key)
        if layer_plan.channelwise:
            entry["channelwise"] = list(layer_plan.channelwise)
        if model is not None:
            layer = model.get_submodule(name)
            entry["before"] = layer.weight.numel()
            entry["after"] = compact_weights(layer, layer_plan)
            if layer_plan.error is not None:
                entry["error"] = float(f"{layer_plan.error:.3g}")
        entries[name] = entry
    return entries


def without_information(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Only what decides."""
    return {
        name: {key: value for key, value in entry.items() if key not in INFORMATION}
        for name, entry in entries.items()
    }


def read_plan(path: str) -> dict[str, Any]:
    """The readable form of a plan from a file.

    Raises:
        InputError: the file cannot be read, or is not a mapping.
    """
    entries = read_yaml(path)
    if not entries or not all(isinstance(name, str) for name in entries):
        raise InputError(f"{path}: not a mapping of layer names")
    return entries


def write_plan(entries: Mapping[str, Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write the readable form of a plan, of which :func:`read_plan` reads the same."""
    text = yaml.safe_dump(dict(entries), sort_keys=False, default_flow_style=None)
    with replacing(os.fspath(path)) as temporary:
        Path(temporary).write_text(HEADER + text, encoding="utf-8")
