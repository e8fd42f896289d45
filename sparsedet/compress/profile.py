"""For every layer, what each pattern and each choice of ranks costs and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..hooks import evaluating
from .candidates import compact_layers, dense_layers
from .collector import Collector, collected
from .curves import Option
from .links import Link
from .plan import can_shrink, channels_of, choose_layers
from .recording import Recording
from .sensitivity import Sensitivity
from .survey import count_parameters
from .task import Task

SEARCHED_PATTERNS = ("rows", "checkerboard", "quad", "cross", "whole")
"""Those among which a plan chooses: all but ``columns``, which are ``rows`` turned."""

NARROWER = [k / 8 for k in range(7, 0, -1)]
"""Shares of the channels that may be kept."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer by itself.

    Attributes:
        outputs: output positions in one batch, where the model is deployed.
        options: the dense layer first.
        channels: (in, out), of a layer that may become narrower or whose reader may.
    """

    outputs: float
    options: list[Option]
    channels: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class WidthOption:
    """Some of a layer's output channels are kept.

    Attributes:
        channels: how many.
        error: of the reader, which is fitted anew, as in :class:`Option`.
    """

    channels: int
    error: float


@dataclass(frozen=True)
class WidthProfile:
    """How many outputs of a layer its reader does without; ``options``: all of them first."""

    link: Link
    options: list[WidthOption]


@dataclass(frozen=True)
class Profile:
    """The layers that may be compressed, and the whole model's parameters and multiply-adds.

    Multiply-adds are those of convolutions and fully connected layers in one batch, where the model
    is deployed. ``widths`` are of the layers that may have fewer outputs. ``recording`` is of these
    layers and of those that answer.
    """

    layers: dict[str, LayerProfile]
    parameters: int
    multiply_adds: float
    widths: dict[str, WidthProfile] = field(default_factory=dict)
    recording: Recording | None = field(default=None, repr=False, compare=False)


@torch.no_grad()
def profile_layers(
    model: nn.Module,
    task: Task,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    patterns: Sequence[str] = SEARCHED_PATTERNS,
    sensitivities: Mapping[str, Sensitivity] | None = None,
    progress: bool = False,
    every: int = 1,
    links: Mapping[str, Link] | None = None,
    record: bool = False,
) -> Profile:
    """What compression would do to each layer by itself, on the dense model's own activations.

    One profile serves any number of :func:`plan_for_targets`. What the forward pass never calls
    stays dense, and so does a layer whose weights something else reads.

    Args:
        task: what the model runs on.
        include, exclude: shell-style patterns of layer names.
        patterns: those among which to choose, layer by layer.
        sensitivities: of layers by name; where there is none, all outputs count alike.
        progress: show a bar.
        every: look at every so many-th batch; what is counted is counted on all.
        links: of layers that may become narrower, as :func:`find_links` has them.
        record: run on all batches, and keep what a calibration needs of the dense model.

    Raises:
        InputError: a name that matches no layer, or a model that is compressed already.
    """
    compact = sorted(compact_layers(model))
    if compact:
        raise InputError(f"{compact[0]} is compressed already: plan for the dense model")
    dense = dense_layers(model)
    layers = choose_layers(dense, include, exclude)
    answers = {name: dense[name] for name in task.answers(model)} if record else {}
    links = {
        name: link
        for name, link in (links or {}).items()
        if name in layers and link.reader in layers
    }
    linked = {*links, *(link.reader for link in links.values())}
    with evaluating(model):
        survey, costs = task.survey(model), task.deployed.survey(model)
        layers = {
            name: layers[name]
            for name in survey.outputs
            if name in layers
            and name not in survey.read
            and (can_shrink(layers[name], patterns) or name in linked)
        }
        recording = None
        if record:
            kept = {n: count for n, count in survey.outputs.items() if n in {**layers, **answers}}
            recording = Recording(dense, answers, kept, len(task.batches))
        producers = {link.reader: name for name, link in links.items()}
        profiles, widths = {}, {}
        with tqdm(desc="planning", total=len(layers), unit="layer", disable=not progress) as bar:
            for name, collector in collected(
                model,
                layers,
                survey.outputs,
                task,
                sensitivities or {},
                producers,
                every,
                recording,
                survey.positions,
            ):
                options = collector.options(patterns)
                profiles[name] = LayerProfile(
                    costs.outputs.get(name, 0.0), options, channels_of(layers[name])
                )
                if name in producers and collector.samples:
                    producer = producers[name]
                    count = channels_of(layers[producer])[1]
                    widths[producer] = _width_profile(links[producer], collector, count)
                bar.update()
    return Profile(profiles, count_parameters(model), costs.multiply_adds, widths, recording)


def _width_profile(link: Link, collector: Collector, channels: int) -> WidthProfile:
    """What a layer loses with fewer and fewer of the channels that it reads."""
    counts = sorted({int(share * channels) for share in NARROWER} - {0}, reverse=True)
    options = [WidthOption(channels, 0.0)]
    if counts:
        choice = collector.channels(channels, counts[0])
        errors = np.maximum.accumulate(collector.channel_errors(choice, counts)).tolist()
        options += [WidthOption(*pair) for pair in zip(counts, errors)]
        link = replace(link, order=tuple(choice.order))
    return WidthProfile(link, options)
