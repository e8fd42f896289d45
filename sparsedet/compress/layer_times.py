"""Milliseconds of layers, dense and compact, on this machine."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import sub
from statistics import median
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..hooks import evaluating
from ..timing import milliseconds, take_turns
from .curves import Option
from .engine import PYTORCH, Engine
from .plan import LayerPlan, Plan, channels_of, planned_channels
from .profile import Profile
from .surgery import compact_twin, planned_layers
from .targets import Cost
from .task import Task

ROUNDS = 5
"""How often each form of a layer runs at least."""

SECONDS = 0.08
"""Time to spend on each form; a fast one runs more often."""

Curve = list[tuple[int, float]]
"""Points (weights, milliseconds), of which neither ever falls."""

Form = tuple[str | None, int | None]
"""See :attr:`LayerPlan.form`."""


@torch.no_grad()
def measure_latency(
    model: nn.Module,
    profile: Profile,
    task: Task,
    progress: bool = False,
    engine: Engine = PYTORCH,
) -> Cost:
    """Milliseconds of one batch as a cost for :func:`plan_for_targets`.

    Each layer runs by itself, on random input of the shapes that it sees in a batch of median size,
    as often as it is called there. Timed are the dense layer and, of each form, the smallest,
    the middle and the largest option, taking turns; options between these are interpolated by their
    weights. Layers of one shape are timed once.

    Args:
        model: the dense model of the profile. It is left as it was.
        task: its batches, and how to run the model on them.
        progress: show a bar.
        engine: what runs layers and model.

    Raises:
        InputError: a model that is not that of the profile.
    """
    layers = planned_layers(model, profile.layers)
    costs: dict[tuple[str, LayerPlan | None], float] = {}
    tiny: dict[str, float] = {}
    measured: dict[tuple, tuple[float, float, dict[Form, Curve]]] = {}
    with evaluating(model):
        survey = task.survey(model)
        for name in tqdm(layers, desc="latency", unit="layer", disable=not progress):
            _, *options = profile.layers[name].options
            inputs = survey.inputs.get(name, [])
            key = _shape(layers[name], options, inputs)
            if key not in measured:
                measured[key] = _measure(layers[name], options, inputs, engine)
            costs[name, None], tiny[name], curves = measured[key]
            for option in options:
                costs[name, option.plan] = _interpolate(curves[option.plan.form], option.weights)
        rest = _measure_rest(model, layers, tiny, task, engine)
    return Cost(lambda name, plan: costs[name, plan], rest)


@torch.no_grad()
def time_layers(
    model: nn.Module,
    plan: Plan,
    task: Task,
    progress: bool = False,
    engine: Engine = PYTORCH,
) -> tuple[dict[str, tuple[float, float]], float]:
    """Milliseconds of each layer in a plan, (dense, compact), and of all the rest of the model.

    They are measured as :func:`measure_latency` does it.

    Args:
        model: the dense model. It is left as it was.
        task: its batches, and how to run the model on them.
        progress: show a bar.
        engine: what runs the layers.

    Raises:
        InputError: a plan that does not fit the model.
    """
    layers = planned_layers(model, plan)
    times, tiny = {}, {}
    with evaluating(model):
        inputs = task.survey(model).inputs
        for name in tqdm(layers, desc="latency", unit="layer", disable=not progress):
            forms = [plan[name], _tiny(layers[name])]
            dense, compact, tiny[name] = _time_forms(
                layers[name], forms, inputs.get(name, []), engine
            )
            times[name] = dense, compact
        return times, _measure_rest(model, layers, tiny, task, engine)


def _tiny(layer: nn.Module) -> LayerPlan:
    """A form that takes next to no time."""
    if isinstance(layer, nn.Linear):
        return LayerPlan((1,))
    return LayerPlan((layer.groups,), "whole")


def _measure_rest(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    tiny: Mapping[str, float],
    task: Task,
    engine: Engine,
) -> float:
    """Milliseconds of what runs in no layer: what tiny layers leave of a model of such ones.

    It is little beside the dense layers, and what these leave of the dense model would be noise.

    Args:
        tiny: milliseconds of the tiny form of each layer.
    """
    twins = {x: compact_twin(x, _tiny(x), project=False) for x in layers.values()}
    small = copy.deepcopy(model, {id(layer): twin for layer, twin in twins.items()})
    task.finish(small)
    [whole] = _rounds([(engine.model(small, task), [task.survey(model).batch])])
    return max(median(whole) - sum(tiny.values()), 0.0)


def _shape(layer: nn.Module, options: Sequence[Option], inputs: Sequence[torch.Tensor]) -> tuple:
    """All that decides what the forms of a layer take, up to their ranks."""
    calls = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
    return repr(layer), frozenset(option.plan.form for option in options), calls


def _measure(
    layer: nn.Module, options: Sequence[Option], inputs: Sequence[torch.Tensor], engine: Engine
) -> tuple[float, float, dict[Form, Curve]]:
    """Milliseconds of the dense layer and of its tiny form; those of each form by weights."""
    by_form: dict[Form, list[Option]] = {}
    for option in sorted(options, key=lambda option: option.weights):
        by_form.setdefault(option.plan.form, []).append(option)
    timed = [
        some[index]
        for some in by_form.values()
        for index in sorted({0, len(some) // 2, len(some) - 1})
    ]
    forms = [_tiny(layer), *(option.plan for option in timed)]
    dense, tiny, *compact = _time_forms(layer, forms, inputs, engine)
    curves: dict[Form, Curve] = {form: [] for form in by_form}
    for option, ms in zip(timed, compact):
        curve = curves[option.plan.form]
        # What has more weights takes no less time: less would be noise.
        curve.append((option.weights, max([ms, *(t for _, t in curve)])))
    return dense, tiny, curves


def _interpolate(curve: Curve, weights: int) -> float:
    """Linear from point to point, constant beyond the first and the last."""
    after = bisect_left(curve, (weights,))
    if after in (0, len(curve)):
        return curve[max(after - 1, 0)][1]
    (fewer, least), (more, most) = curve[after - 1 : after + 1]
    return least + (most - least) * (weights - fewer) / (more - fewer)


def _time_forms(
    layer: nn.Module, plans: Sequence[LayerPlan], inputs: Sequence[torch.Tensor], engine: Engine
) -> list[float]:
    """Milliseconds of a layer on all of its inputs: dense, and then under each plan.

    What the engine needs around a layer alone is timed beside, and left out.

    Compact trunks run in channels-last on a CPU. So the compact forms get such tensors, as they
    will from the compact layers before them.
    """
    if not inputs:
        return [0.0] * (1 + len(plans))
    inputs = [torch.randn_like(x, device=layer.weight.device) for x in inputs]
    forms = [(layer, inputs)]
    conv = isinstance(layer, nn.Conv2d)
    if conv and layer.weight.device.type == "cpu":
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    for plan in plans:
        count, axis = planned_channels(layer, plan)[0], -3 if conv else -1
        if count < channels_of(layer)[0]:
            fewer = [x.narrow(axis, 0, count).clone() for x in inputs]  # in the format of all
        else:
            fewer = inputs
        forms.append((compact_twin(layer, plan, project=False), fewer))
    runs = [engine.layer(*form) for form in forms]
    widths = [x[0].shape for _, x in forms]
    frames = {width: engine.frame(*form) for width, form in dict(zip(widths, forms)).items()}
    around = {width: frame for width, frame in frames.items() if frame is not None}
    times = _rounds([*runs, *around.values()])
    frame_times = dict(zip(around, times[len(runs) :]))
    nothing = (0.0,) * len(times[0])
    return [
        max(median(map(sub, time, frame_times.get(width, nothing))), 0.0)
        for time, width in zip(times, widths)
    ]


def _rounds(runs: Sequence[tuple[Callable, Sequence[Any]]]) -> list[tuple[float, ...]]:
    """Milliseconds of each function on all of its inputs, in each round."""
    calls = [partial(milliseconds, *run) for run in runs]
    return list(zip(*take_turns(calls, ROUNDS, SECONDS * len(runs))))
