"""The smallest, or the fastest, compact model that loses no more accuracy than its user allows.

Each candidate is evaluated, not guessed: planned for a factor, fitted, scored. The factor is sought
by halving, in its logarithm, what lies between the largest that was within the drop and the
smallest that was not.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .compress import Request, Result, Task, count_parameters
from .compress import compress_ as compress_by_request
from .compress.engine import PYTORCH, Engine
from .compress.entries import plan_to_entries
from .compress.planning import Planner
from .compress.profile import SEARCHED_PATTERNS
from .errors import InputError
from .files import replacing, replacing_folder, restore_folder
from .json_files import read_json
from .reports.page import PAGE, show_steps
from .reports.tables import pipe_table

STEPS = 6
"""Candidates of a search. They leave the factor uncertain by a 64th of its range's logarithm."""
BEST = "best"
RECORD = "search.json"


@dataclass(frozen=True)
class Step:
    """One candidate: the factor it was planned for, what it is, and what it scores."""

    factor: float
    parameters: int
    multiply_adds: float
    milliseconds: float
    score: float

    def check(self) -> None:
        """Raise TypeError, ValueError or OverflowError for what no step is."""
        if not all(math.isfinite(value) for value in asdict(self).values()) or self.factor <= 0:
            raise ValueError("a number of a step is not one")


class Search:
    """A search in a folder, which goes on where an earlier one with the same settings ended.

    Args:
        folder: gets ``best/``, what :meth:`Result.save` writes of the best candidate so far;
            ``search.json``, the steps; and ``search.md``, a table of them.
        settings: what the search is for, as JSON has it; ``max_drop`` and ``metric`` among them.

    Raises:
        InputError: the folder has something else in it, or a search with other settings.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        self.folder, self.settings = folder, dict(settings)
        self.best = os.path.join(folder, BEST)
        self.dense: Step | None = None
        self.steps: list[Step] = []
        restore_folder(self.best)
        record = Path(folder, RECORD)
        if record.is_file():
            self._read(record)
        elif set(os.listdir(folder)) - {".lock"}:
            raise InputError(f"{folder}: exists already; choose a new folder")

    def _read(self, record: Path) -> None:
        try:
            found = read_json(record)
            settings = dict(found["settings"])
            dense, *steps = [Step(**step) for step in found["steps"]]
            for step in (dense, *steps):
                step.check()
        except (ArithmeticError, InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{record}: not the record of a search; choose a new folder"
            ) from error
        if settings != self.settings:
            changed = [k for k, value in self.settings.items() if settings.get(k) != value]
            raise InputError(
                f"{record}: a search with another {', '.join(changed) or 'setting'}; set it back, "
                "or choose a new folder"
            )
        self.dense, self.steps = dense, steps

    def within(self, step: Step) -> bool:
        """Whether a candidate loses no more than it may."""
        return self.dense.score - step.score <= self.settings["max_drop"]

    def add(self, step: Step) -> None:
        """Keep a step; the first is the dense model's."""
        if self.dense is None:
            self.dense = step
        else:
            self.steps.append(step)
        steps = [asdict(s) for s in (self.dense, *self.steps)]
        with replacing(os.path.join(self.folder, RECORD)) as temporary:
            record = {"settings": self.settings, "steps": steps}
            Path(temporary).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        with replacing(os.path.join(self.folder, "search.md")) as temporary:
            Path(temporary).write_text(f"{self}\n", encoding="utf-8")

        page = os.path.join(self.best, PAGE)
        if os.path.isfile(page):
            show_steps(page, *self.table())

    def __str__(self) -> str:
        """The steps in a table, in order."""
        return pipe_table(*self.table())

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row for each step, in order."""
        metric, most = self.settings["metric"], self.settings["max_drop"]
        rows = [
            [
                "dense" if step is self.dense else f"{step.factor:.2f}x",
                f"{step.parameters / 1e6:.2f} M",
                f"{step.multiply_adds / 1e9:.2f} G",
                f"{step.milliseconds:.0f}" if step.milliseconds else "",
                f"{step.score:.2f}",
                "" if step is self.dense else f"{step.score - self.dense.score:+.2f}",
                "" if step is self.dense else "yes" if self.within(step) else "no",
            ]
            for step in (self.dense, *self.steps)
            if step is not None
        ]
        heads = ["planned for", "parameters", "multiply-adds", "ms per batch", metric, "change"]
        return [*heads, f"within {most:g}"], rows


def search_smallest(
    model: nn.Module,
    task: Task,
    unit: str,
    score: Callable[[nn.Module], float],
    search: Search,
    *,
    patterns: Sequence[str] = SEARCHED_PATTERNS,
    engine: Engine = PYTORCH,
    progress: bool = False,
) -> Step:
    """Find the model of the largest factor in ``unit`` within the drop; the search keeps it.

    The dense model is looked at once; each candidate costs its fit and an evaluation.

    Args:
        model: the dense one; it is not changed.
        unit: "params", "flops" or "latency", which is to shrink most.
        score: accuracy of a model; more is better.
        patterns: the sparse kernels among which each candidate's plan chooses.
        engine: what runs the models where they are timed.

    Raises:
        InputError: no candidate is within the drop; the message says what the nearest loses.
    """
    dense = score(model) if search.dense is None else search.dense.score
    task.start(model)
    sensitivities = task.sensitivities(model, progress)
    request = Request(**{unit: 1.0}, patterns=patterns)
    planner = Planner(model, task, request, sensitivities, progress, engine)
    recording = planner.profile.recording
    if search.dense is None:
        search.add(Step(1.0, count_parameters(model), planner.profile.multiply_adds, 0.0, dense))
    low, high = 1.0, planner.largest(unit)
    for step in search.steps:
        low, high = (step.factor, high) if search.within(step) else (low, step.factor)
    while len(search.steps) < STEPS:
        factor = math.sqrt(low * high)
        plan, notes = planner.plan({unit: factor})
        request = Request(plan=plan_to_entries(plan, model))
        result = compress_by_request(
            copy.deepcopy(model),
            task,
            request,
            sensitivities=sensitivities,
            recording=recording and recording.copy(),
            engine=engine,
            progress=progress,
        )
        result.notes += notes
        step = _step(factor, result, score(result.model))
        if search.within(step):
            with replacing_folder(search.best) as temporary:
                result.write(temporary, search.best)
        search.add(step)
        low, high = (factor, high) if search.within(step) else (low, factor)
    kept = [step for step in search.steps if search.within(step)]
    if not kept:
        nearest = min(search.steps, key=lambda step: step.factor)
        lost = search.dense.score - nearest.score
        raise InputError(
            f"a drop of {search.settings['max_drop']:g} cannot be met: at {nearest.factor:.2f}x "
            f"{search.settings['metric']} is {lost:.2f} below the dense model's; allow more, or "
            "fine-tune a larger factor"
        )
    return max(kept, key=lambda step: step.factor)


def _step(factor: float, result: Result, score: float) -> Step:
    milliseconds = result.milliseconds[1] if result.milliseconds else 0.0
    return Step(factor, result.parameters[1], result.multiply_adds[1], milliseconds, score)


def find_metric(results: Mapping[str, Mapping[str, float]], name: str) -> float:
    """The number that a user calls ``name``, as "AP50" or "segm/AP", among an evaluation's.

    Raises:
        InputError: there is none, or it is not a number, as where the data has no objects.
    """
    found = {
        f"{task}/{key}": value for task, values in results.items() for key, value in values.items()
    }
    matches = [key for key in found if name in (key, key.split("/", 1)[1])]
    if not matches:
        known = ", ".join(key for key in found if "-" not in key)
        raise InputError(f"--metric {name}: this evaluation gives {known}")
    value = found[matches[0]]
    if not math.isfinite(value):
        raise InputError(f"--metric {name}: it is {value} on this data, which has no such objects")
    return value
