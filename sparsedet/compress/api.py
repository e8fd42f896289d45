"""The whole of a compression, on one screen."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from ..hooks import evaluating
from ..latency import compare_latency
from ..timing import Laps
from .calibrate import calibrate_, check_not_read, project_
from .engine import PYTORCH, Engine
from .entries import plan_to_entries
from .layer_times import time_layers
from .planning import Planner, count_where_deployed, given_plan, missed, untouched
from .recording import Recording
from .request import Request
from .result import Result
from .sensitivity import Sensitivity, unweighed
from .surgery import replace_modules
from .task import Task
from .widths import with_readers

TIMED = 2  # batches on which the whole model is timed, before and after
ROUNDS = 3


def compress_(
    model: nn.Module,
    task: Task,
    request: Request,
    *,
    sensitivities: Mapping[str, Sensitivity] | None = None,
    recording: Recording | None = None,
    engine: Engine = PYTORCH,
    progress: bool = False,
) -> Result:
    """Replace layers of a trained model, in place, by compact ones that put out nearly the same.

    Nothing is trained. The same inputs give the same plan, unless it counts time.

    Args:
        model: the dense one; it runs in eval mode, and keeps the modes that it had.
        task: what to calibrate on.
        request: what each layer is to become, or what the whole model is to cost.
        sensitivities: of the model on the task, where they are known.
        recording: likewise, where the task was started with this model; it is used up.
        engine: what runs the model and its layers where they are timed.
        progress: show bars.

    Raises:
        InputError: a target out of reach; a plan that does not fit; activations that are not
            finite. The model is then as it was, and also after an interruption.
    """
    laps = Laps()
    plan = given_plan(model, request)
    notes = untouched(model)
    if recording is None:
        task.start(model)
    if sensitivities is None and (request.calibrate or plan is None):
        sensitivities = task.sensitivities(model, progress)
        notes += unweighed(sensitivities)
    sensitivities, found = sensitivities or {}, None
    laps.end("sensitivities")
    if plan is None:
        planner = Planner(model, task, request, sensitivities, progress, engine)
        plan, more = planner.plan(request.targets)
        recording, found = planner.profile.recording, planner.found
        notes += more
    plan, links = with_readers(plan, model, task, found)
    entries = plan_to_entries(plan, model)
    check_not_read(task.deployed.survey(model), plan)  # timing runs the model without them
    laps.end("planning")
    times, rest = time_layers(model, plan, task.deployed, progress, engine)
    laps.end("timing layers")

    compact = copy.deepcopy(model)  # the model itself changes last, all at once
    if request.calibrate:
        result = calibrate_(compact, plan, task, sensitivities, progress, links, recording)
    else:
        result = project_(compact, plan, task)
    count_where_deployed(result, model, task)
    task.finish(compact)
    laps.end("fitting")
    result.milliseconds = _time_models(model, compact, task.deployed, engine, progress)
    laps.end("timing models")
    with evaluating(model), evaluating(compact):
        result.pictures = task.pictures({"dense": model, "compact": compact})
    for name in times:
        result.layers[name].milliseconds = times[name]
    result.engine, result.rest_milliseconds = engine.name, rest
    between = (name for entry in plan.values() for name in entry.channelwise)
    changed = {*plan, *task.answers(model), *between}
    replace_modules(
        model, {model.get_submodule(name): compact.get_submodule(name) for name in changed}
    )
    task.finish(model)
    result.model, result.plan, result.seconds = model, entries, laps.seconds
    result.notes = notes + missed(request.targets, result)
    return result


def _time_models(
    dense: nn.Module, compact: nn.Module, deployed: Task, engine: Engine, progress: bool
) -> tuple[float, float]:
    """Milliseconds of a batch."""
    with evaluating(dense), evaluating(compact):
        latency = compare_latency(
            {"dense": engine.model(dense, deployed), "compact": engine.model(compact, deployed)},
            deployed.batches[:TIMED],
            rounds=ROUNDS,
            warmup=1,
            progress=progress,
        )
    return latency["dense"].median, latency["compact"].median
