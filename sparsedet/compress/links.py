"""Which layers' outputs one other layer alone reads, so that some of their channels can go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ..hooks import attached, evaluating
from .candidates import dense_layers
from .link_trial import trial
from .narrow import is_channelwise
from .observe import first_argument, tensors_in
from .patches import groups_of
from .plan import channels_of
from .task import Task

LARGEST = 2**13
"""Numbers in a patch of the reader, whose covariance is held and factored: 0.5 GB."""


@dataclass(frozen=True)
class Link:
    """A layer's output goes, channel by channel, to one reader and to nothing else.

    Attributes:
        reader: the name of that layer.
        channelwise: names of the modules on the way that have numbers for each channel.
        order: of the channels, as far as it was sought; the first to keep comes first.
    """

    reader: str
    channelwise: tuple[str, ...] = ()
    order: tuple[int, ...] = field(default=(), repr=False, compare=False)


Found = tuple[dict[str, Link], dict[str, str]]
"""Links by the names of layers; and for the others the reasons why they have none."""


def find_links(model: nn.Module, task: Task) -> Found:
    """The link of each layer that has one; and for the others the reason why they have none.

    What reads an output is found from gradients on the first batch, every layer's output being cut
    off from what made it. What is found so is then tried, see :func:`trial`: gradients do not show
    a comparison, say. Layers that give the answers keep what they read.
    """
    layers = dense_layers(model)
    answers = set(task.answers(model))
    links, reasons = {}, {}
    with evaluating(model):
        try:
            reads, returned = _direct_reads(model, layers, task)
        except RuntimeError as error:  # of a model that no gradient goes through
            reason = f"what reads it cannot be followed: {str(error).splitlines()[0]}"
            return {}, dict.fromkeys(layers, reason)
        never = [name for name in layers if name not in reads]
        for name, layer in layers.items():
            readers = [reader for reader in layers if name in reads.get(reader, ())]
            reason = _why_not(name, layer, layers, readers, reads, returned, answers)
            if never:  # it may read anything
                reason = f"{never[0]} sees nothing of the first image, and may read it"
            if reason:
                reasons[name] = reason
                continue
            between = [m for m, inputs in reads.items() if m not in layers and inputs == {name}]
            links[name] = Link(readers[0], tuple(between))
        if links and not _hold(model, links, task, reasons):
            for name in list(links):
                if not _hold(model, {name: links[name]}, task, reasons):
                    del links[name]
    return links, {name: reason for name, reason in reasons.items() if name not in links}


def _hold(model: nn.Module, links: dict[str, Link], task: Task, reasons: dict[str, str]) -> bool:
    reason = trial(model, links, task)
    reasons.update(dict.fromkeys(links, reason))
    return not reason


def _why_not(
    name: str,
    layer: nn.Module,
    layers: Mapping[str, nn.Module],
    readers: list[str],
    reads: Mapping[str, set[str]],
    returned: set[str],
    answers: Collection[str],
) -> str:
    """Why a layer has no link; "" where nothing speaks against it."""
    if name in answers:
        return "it gives answers"
    if groups_of(layer) > 1:
        return "it has groups"
    if name in returned:
        return "the model gives it to its caller"
    if len(readers) != 1:
        return f"{len(readers)} layers read it{': ' if readers else ''}{', '.join(readers[:3])}"
    [reader] = readers
    if reads[reader] != {name}:
        return f"{reader} reads it together with what other layers give"
    if reader in answers:
        return f"{reader} reads it and gives answers"
    if groups_of(layers[reader]) > 1:
        return f"{reader} reads it and has groups"
    if layers[reader].weight[0].numel() > LARGEST:
        return f"{reader} reads it and has more than {LARGEST} inputs"
    if channels_of(layers[reader])[0] % channels_of(layer)[1]:
        return f"{reader} reads it together with something else"
    return ""


def _direct_reads(
    model: nn.Module, layers: Mapping[str, nn.Module], task: Task
) -> tuple[dict[str, set[str]], set[str]]:
    """Of layers and channelwise modules, which layers' outputs come to them through no other layer.

    Returns:
        the names of these by the name of each module that runs, and of those whose outputs come so
        to the caller of the model
    """
    inside = {id(child) for layer in layers.values() for child in layer.modules()}
    between = {
        name: module
        for name, module in model.named_modules()
        if is_channelwise(module) and id(module) not in inside
    }
    outputs: list[tuple[str, torch.Tensor]] = []
    reads: dict[str, set[str]] = {}

    def cut(name: str, module: nn.Module, args: Any, y: torch.Tensor) -> torch.Tensor:
        outputs.append((name, y.detach().requires_grad_()))
        return outputs[-1][1].clone()  # what follows may work in place

    def look(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        x = first_argument(args, kwargs)
        if x.numel():  # with nothing to see, nothing is shown
            reads.setdefault(name, set()).update(_sources([x], outputs))

    def hooks() -> Iterator[Any]:
        for name, module in (layers | between).items():
            yield module.register_forward_pre_hook(partial(look, name), with_kwargs=True)
        for name, layer in layers.items():
            yield layer.register_forward_hook(partial(cut, name))

    with attached(hooks()), torch.enable_grad():
        given = task.forward(model, task.batches[0])
        return reads, _sources(tensors_in(given), outputs)


def _sources(
    tensors: Collection[torch.Tensor], outputs: list[tuple[str, torch.Tensor]]
) -> set[str]:
    """Names of the outputs from which some tensors were computed."""
    total = [x.sum() for x in tensors if x.requires_grad and x.numel()]
    if not total or not outputs:
        return set()
    gradients = torch.autograd.grad(
        sum(total), [y for _, y in outputs], retain_graph=True, allow_unused=True
    )
    return {name for (name, _), gradient in zip(outputs, gradients) if gradient is not None}
