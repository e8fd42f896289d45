"""Which channels the narrower layers of a plan keep, and what their readers start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import InputError
from .collector import EVERY, Collector, collected
from .link_trial import input_columns
from .links import Found, Link, find_links
from .narrow import keep_channels, keep_outputs, read_fewer
from .plan import LayerPlan, Plan, channels_of, check_within
from .sensitivity import Sensitivity
from .task import Task


def is_narrower(entry: LayerPlan) -> bool:
    """Whether a layer loses inputs or outputs."""
    return entry.in_channels is not None or entry.out_channels is not None


def with_readers(
    plan: Plan, model: nn.Module, task: Task, found: Found | None = None
) -> tuple[Plan, dict[str, Link]]:
    """The plan with what follows from ``out_channels``: the reader's inputs, and the norms between.

    Args:
        found: what :func:`find_links` gives, where that is known.

    Returns:
        the plan, and what :func:`find_links` gives if any layer of it becomes narrower

    Raises:
        InputError: outputs that others read are to go, or inputs of a layer that gets them all; or
            too few are left for the ranks of a reader.
    """
    if not any(map(is_narrower, plan.values())):
        return plan, {}
    links, reasons = found or find_links(model, task)
    plan, inputs = dict(plan), {}
    for name, entry in list(plan.items()):
        if entry.out_channels is None:
            continue
        if name not in links:
            raise InputError(
                f"plan entry {name!r}: it cannot have fewer out_channels: "
                f"{reasons.get(name, 'it never runs')}"
            )
        link = links[name]
        if entry.channelwise and set(entry.channelwise) != set(link.channelwise):
            raise InputError(
                f"plan entry {name!r}: channelwise must be {list(link.channelwise)}, or left out"
            )
        plan[name] = replace(entry, channelwise=link.channelwise)
        before = channels_of(model.get_submodule(name))[1]
        each = channels_of(model.get_submodule(link.reader))[0] // before
        inputs[link.reader] = each * entry.out_channels
    for name in {**plan, **inputs}:
        entry = plan.get(name, LayerPlan())
        if entry.in_channels not in (None, inputs.get(name)):
            gets = inputs.get(name, "all")
            raise InputError(
                f"plan entry {name!r}: in_channels is {entry.in_channels}, but it gets {gets}; "
                "they follow from out_channels of the layer that it reads"
            )
        if name in inputs:
            plan[name] = replace(entry, in_channels=inputs[name])
            check_within(name, model.get_submodule(name), plan[name])
    return plan, links


@dataclass(frozen=True)
class Narrowing:
    """The narrower layers of a plan, before they are fitted.

    Attributes:
        starts: for each, the dense layer of the outputs that are kept, with fewer inputs, its
            weights fitted to them.
        kept: for each that has fewer outputs, which.
        channelwise: for modules between, their narrower forms.
    """

    starts: dict[str, nn.Module]
    kept: dict[str, torch.Tensor]
    channelwise: dict[nn.Module, nn.Module]

    def sensitivities(self, dense: Mapping[str, Sensitivity]) -> dict[str, Sensitivity]:
        """Of the outputs that are kept, from those of all."""
        return {n: dense[n].narrow(kept) for n, kept in self.kept.items() if n in dense}


@torch.no_grad()
def narrow_layers(
    model: nn.Module,
    plan: Plan,
    links: Mapping[str, Link],
    task: Task,
    sensitivities: Mapping[str, Sensitivity],
) -> Narrowing:
    """Choose the channels that are kept, on the dense model's own activations.

    The choice for one layer knows nothing of the others'.
    """
    names = [name for name, entry in plan.items() if entry.out_channels is not None]
    starts = {n: model.get_submodule(n) for n, entry in plan.items() if is_narrower(entry)}
    kept: dict[str, torch.Tensor] = {}
    channelwise: dict[nn.Module, nn.Module] = {}
    if not names:
        return Narrowing(starts, kept, channelwise)
    producers = {links[name].reader: name for name in names}
    readers = {reader: model.get_submodule(reader) for reader in producers}
    outputs = task.survey(model).outputs
    # As a profile does, with the same images held out: the same plan then keeps the same channels.
    for reader, collector in collected(
        model, readers, outputs, task, sensitivities, readers, EVERY
    ):
        producer = producers[reader]
        dense = model.get_submodule(producer)
        count, order = plan[producer].out_channels, links[producer].order
        choice = collector.channels(channels_of(dense)[1], count, order)
        kept[producer] = torch.tensor(sorted(choice.order))
        columns = input_columns(dense, collector.layer, kept[producer])
        starts[reader] = _reader(collector, choice.weights(len(choice.order)), columns)
        for inner in plan[producer].channelwise:
            module = model.get_submodule(inner)
            channelwise[module] = keep_channels(module, kept[producer])
    for name in kept:
        starts[name] = keep_outputs(starts[name], kept[name])
    return Narrowing(starts, kept, channelwise)


def _reader(collector: Collector, weight: torch.Tensor, columns: torch.Tensor) -> nn.Module:
    """The layer for some of its input channels, with weights (C, D) that use no others."""
    layer, unweigh = collector.layer, collector.sensitivity.unweigh
    bias = None
    if layer.bias is not None:
        statistics = collector.statistics[0]
        bias = layer.bias + unweigh(statistics.y - weight @ statistics.x)
    weight = unweigh(weight)
    if isinstance(layer, nn.Conv2d):
        weight = weight.unflatten(1, (*layer.kernel_size, -1)).permute(0, 3, 1, 2)
    return read_fewer(layer, weight[:, columns.to(weight.device)], bias)
