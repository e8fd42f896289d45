"""From targets to a plan, and what became of the targets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ..errors import InputError
from .candidates import left_alone
from .collector import EVERY
from .engine import PYTORCH, Engine
from .entries import read_plan, resolve_plan
from .layer_times import measure_latency
from .links import Found, find_links
from .plan import Plan
from .profile import Profile, profile_layers
from .request import Request
from .result import Result
from .sensitivity import Sensitivity
from .targets import Cost, largest_factor, plan_for_targets
from .task import Task

MISSED = 1 - 1e-6
"""A target counts as missed below this share of it, which leaves room for rounding."""


def given_plan(model: nn.Module, request: Request) -> Plan | None:
    """The plan that was asked for; None where there are targets instead.

    Raises:
        InputError: it cannot be read, or does not fit the model.
    """
    if request.plan is None:
        return None
    if isinstance(request.plan, Mapping):
        return resolve_plan(model, request.plan)
    return resolve_plan(model, read_plan(os.fspath(request.plan)))


class Planner:
    """What the layers of one dense model may become; it is looked at once, for any targets.

    Time is measured only for a target of it, or for ``no_slower``.

    Args:
        request: which layers and options count; its targets say whether time does.
        engine: what runs the model where time is measured.

    Raises:
        InputError: a name that matches no layer.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        request: Request,
        sensitivities: Mapping[str, Sensitivity],
        progress: bool = False,
        engine: Engine = PYTORCH,
    ):
        self.found: Found | None = find_links(model, task) if request.width else None
        self.profile = profile_layers(
            model,
            task,
            request.include,
            [*request.exclude, *task.answers(model)],
            request.patterns,
            sensitivities,
            progress,
            EVERY,
            self.found[0] if self.found else {},
            record=request.calibrate,
        )
        if self.found:  # the links of the profile know which channels to keep
            self.found[0].update({n: width.link for n, width in self.profile.widths.items()})
        self.costs: dict[str, Cost] = {}
        if "latency" in request.targets or request.no_slower:
            self.costs["latency"] = measure_latency(
                model, self.profile, task.deployed, progress, engine
            )

    def plan(self, targets: Mapping[str, float]) -> tuple[Plan, list[str]]:
        """What each layer is to become so that the whole model meets the targets; and notes.

        Where time counts, no layer becomes slower. Where that rule cannot be kept, it is dropped,
        and a note says so.

        Raises:
            InputError: a target out of reach.
        """
        if not self.costs:
            return plan_for_targets(self.profile, targets), []
        latency = self.costs["latency"]
        if "latency" in targets:
            self._check_latency(targets["latency"])
        try:
            profile = _without_slower(self.profile, latency)
            return plan_for_targets(profile, targets, self.costs), []
        except InputError:
            plan = plan_for_targets(self.profile, targets, self.costs)
        slower = [n for n in plan if latency.layer(n, plan[n]) > latency.layer(n, None)]
        return plan, [
            "the targets cannot be met while no layer is slower than dense, so that rule was "
            f"dropped: {len(slower)} layers are slower"
            f"{', the first ' + slower[0] if slower else ''}"
        ]

    def _check_latency(self, factor: float) -> None:
        """Raise InputError if layers that took no time at all were still too slow."""
        latency = self.costs["latency"]
        dense = latency.rest + sum(latency.layer(name, None) for name in self.profile.layers)
        if dense / factor < latency.rest:
            raise InputError(
                f"out of reach: latency {factor:g}x would be {dense / factor:.3g} ms of "
                f"{dense:.3g}, and what stays dense takes {latency.rest:.3g} by itself; ask for at "
                f"most {self.largest('latency'):.1f}x"
            )

    def largest(self, unit: str) -> float:
        """The factor by which the model can shrink in a unit, if nothing else counts."""
        return largest_factor(self.profile, unit, self.costs)


def _without_slower(profile: Profile, latency: Cost) -> Profile:
    """The profile without the options that take longer than the dense layer."""
    layers = {}
    for name, layer in profile.layers.items():
        dense = latency.layer(name, None)
        options = [o for o in layer.options if latency.layer(name, o.plan) <= dense]
        layers[name] = replace(layer, options=options)
    return replace(profile, layers=layers)


def untouched(model: nn.Module) -> list[str]:
    """A line for each reason why layers of a dense model cannot become compact."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_alone(model).items():
        reasons.setdefault(reason, []).append(name)
    return [f"left alone: {', '.join(names)} ({reason})" for reason, names in reasons.items()]


def count_where_deployed(result: Result, model: nn.Module, task: Task) -> None:
    """Replace the result's counts, taken in calibration, by those of where the model will run.

    Args:
        model: the dense one.
    """
    if (deployed := task.deployed) is task:
        return
    survey = deployed.survey(model)
    saved = 0.0
    for name, layer in result.layers.items():
        layer.outputs = survey.outputs.get(name, 0.0)
        before, after = layer.multiply_adds
        saved += before - after
    result.multiply_adds = survey.multiply_adds, survey.multiply_adds - saved


def missed(targets: Mapping[str, float], result: Result) -> list[str]:
    """A line for each target that the whole model, counted after all was done, does not meet.

    Time is left out: layers are timed one by one, and a model is more than their sum.
    """
    counts = {"params": result.parameters, "flops": result.multiply_adds}
    lines = []
    for unit in targets.keys() & counts.keys():
        before, after = counts[unit]
        if before < MISSED * targets[unit] * after:
            lines.append(f"{unit}: {targets[unit]:g}x was asked, {before / after:.2f}x was reached")
    return lines
