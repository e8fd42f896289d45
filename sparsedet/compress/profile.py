"""For every layer, what each pattern and each choice of ranks costs and loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..hooks import evaluating
from .candidates import compact_layers, dense_layers
from .collector import Collector, wanted
from .curves import Option
from .fit import ROWS
from .observe import observe
from .plan import can_shrink, choose_layers
from .sensitivity import Sensitivity
from .survey import Sample, Survey, count_parameters
from .task import Task

SEARCHED_PATTERNS = ("rows", "checkerboard", "quad", "cross", "whole")
"""Those among which a plan chooses: all but ``columns``, which are ``rows`` turned."""

MEMORY = 2**31
"""Bytes of statistics that are held at once; beyond, the batches run again for further layers."""


@dataclass(frozen=True)
class LayerProfile:
    """``outputs``: output positions in one batch; ``options``: the dense layer first."""

    outputs: float
    options: list[Option]


@dataclass(frozen=True)
class Profile:
    """The layers that may be compressed, and the whole model's parameters and multiply-adds.

    Multiply-adds are those of convolutions and fully connected layers in one batch.
    """

    layers: dict[str, LayerProfile]
    parameters: int
    multiply_adds: float


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

    Raises:
        InputError: a name that matches no layer, or a model that is compressed already.
    """
    compact = sorted(compact_layers(model))
    if compact:
        raise InputError(f"{compact[0]} is compressed already: plan for the dense model")
    layers = choose_layers(dense_layers(model), include, exclude)
    some = task.every(every)
    sensitivities = sensitivities or {}
    with evaluating(model):
        survey = Survey(model, layers, task.batches, task.forward)
        layers = {
            name: layers[name]
            for name in survey.outputs
            if name not in survey.read and can_shrink(layers[name], patterns)
        }
        expected = {name: survey.outputs[name] * len(some.batches) for name in layers}
        sample = Sample(expected, {name: wanted(layer) for name, layer in layers.items()})
        profiles = {}
        with tqdm(desc="planning", total=len(layers), unit="layer", disable=not progress) as bar:
            for names in _groups(layers):
                collectors = {
                    name: Collector(
                        layers[name], sample, name, sensitivities.get(name, Sensitivity())
                    )
                    for name in names
                }
                visits = {layers[name]: collectors[name].collect for name in names}
                for _ in observe(model, some.batches, task.forward, visits):
                    pass
                for name in names:
                    options = collectors.pop(name).options(patterns)
                    profiles[name] = LayerProfile(survey.outputs[name], options)
                    bar.update()
    return Profile(profiles, count_parameters(model), survey.multiply_adds)


def _groups(layers: dict[str, nn.Module]) -> Iterator[list[str]]:
    """Consecutive layers whose statistics fit in MEMORY together, or one that does not."""
    group: list[str] = []
    held = 0
    for name, layer in layers.items():
        size = layer.weight[0].numel()
        need = 4 * ROWS * size if isinstance(layer, nn.Linear) else 8 * size * size
        if group and held + need > MEMORY:
            yield group
            group, held = [], 0
        group.append(name)
        held += need
    if group:
        yield group
