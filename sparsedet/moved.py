"""What stood elsewhere in 0.1.0, found at its old place for one release, with a warning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from .compress import Plan, Request, Result, Sensitivity, Task
from .compress.calibrate import calibrate_
from .compress.observe import call_model
from .compress.planning import Planner
from .compress.profile import SEARCHED_PATTERNS, Profile
from .compress.profile import profile_layers as profile_task
from .errors import InputError


def finder(module: str, names: Mapping[str, tuple[str, str]]) -> Callable[[str], Any]:
    """A ``__getattr__`` for an old module.

    Args:
        names: for each name, "module:name" of what it is now, and what its users should use.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, instead = names[name]
        warnings.warn(
            f"{module}.{name} goes in the next release: use {instead}",
            DeprecationWarning,
            stacklevel=2,
        )
        new_module, _, attribute = place.partition(":")
        return getattr(importlib.import_module(new_module), attribute)

    return find


def profile_layers(
    model: nn.Module, batches: Iterable[Any] | Task, forward: Any = call_model, *args, **kwargs
) -> Profile:
    """As in 0.1.0."""
    return profile_task(model, _task(batches, forward), *args, **kwargs)


def sparsify_calibrated_(
    model: nn.Module,
    plan: Plan,
    batches: Iterable[Any] | Task,
    forward: Any = call_model,
    metrics: Mapping[str, Sensitivity] | None = None,
    refit: Sequence[str] = (),
    progress: bool = False,
) -> Result:
    """As in 0.1.0."""
    return calibrate_(model, plan, _task(batches, forward, refit), metrics, progress)


def _task(batches: Iterable[Any] | Task, forward: Any, answers: Sequence[str] = ()) -> Task:
    return batches if isinstance(batches, Task) else Task(batches, forward, answers)


def load_images(cfg: Any, folder: str | None, count: int, seed: int = 0) -> Task:
    """What stands for the list of images of 0.1.0, which held what the model proposed."""
    from .detection.images import load_images as load
    from .detection.task import DetectionTask

    return DetectionTask(load(cfg, folder, count, seed), cfg)


def run_detector(model: nn.Module, image: Any) -> None:
    """Only to be passed on: a task runs the detector now."""
    raise InputError("run_detector: use sparsedet.DetectionTask(images).forward instead")


def answer_metrics(model: nn.Module, images: Task) -> dict[str, Sensitivity]:
    """As in 0.1.0, of what :func:`load_images` gives."""
    images.start(model)
    return images.sensitivities(model, progress=True)


def predictors(model: nn.Module) -> list[str]:
    """As in 0.1.0."""
    from .detection.task import DetectionTask

    return DetectionTask([[]]).answers(model)


def plan_compression(
    model: nn.Module,
    images: Task,
    metrics: Mapping[str, Sensitivity],
    targets: Mapping[str, float],
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    patterns: Sequence[str] = SEARCHED_PATTERNS,
) -> Plan:
    """As in 0.1.0: no layer becomes slower, unless the targets cannot be met otherwise."""
    request = Request(
        **targets, include=include, exclude=exclude, patterns=patterns, no_slower=True
    )
    return Planner(model, images, request, metrics, progress=True).plan(request.targets)[0]
