"""What a compression did, to the whole model and to each of its layers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..files import new_folder
from ..weights import check_finite
from .entries import write_plan
from .plan import LayerPlan

if TYPE_CHECKING:
    from .task import Task

WORST = 5  # layers that a printed result names


@dataclass
class LayerResult:
    """One layer.

    Attributes:
        weights: (before, after); these are also its multiply-adds at one output position, but for
            ``again`` more of them after.
        outputs: output positions in one batch where the model is deployed, the mean of a few.
        error: mean square error of the layer's output, before norm and activation, on the
            calibration data, as a share of the output's variance, in the layer's
            :class:`Sensitivity`. Its input comes from the compressed layers below, so their errors
            are in it. None: not measured.
        error_alone: the same for the projection of the weights alone, on the same input.
        samples: number of output positions that were looked at.
        note: what the reader should know; mostly empty.
        milliseconds: (before, after) in one batch, on this machine; None: not measured.
    """

    plan: LayerPlan
    weights: tuple[int, int]
    outputs: float = 0.0
    error: float | None = None
    error_alone: float | None = None
    samples: int = 0
    note: str = ""
    milliseconds: tuple[float, float] | None = None
    again: int = 0

    @property
    def multiply_adds(self) -> tuple[float, float]:
        """(before, after), for one batch."""
        before, after = self.weights
        return self.outputs * before, self.outputs * (after + self.again)


@dataclass
class Result:
    """What :func:`compress_` did.

    Attributes:
        layers: by name, in the order in which they run.
        parameters: (before, after), of the whole model.
        multiply_adds: (before, after), of convolutions and fully connected layers in one batch
            where the model is deployed.
        model: the compact model.
        task: what it was calibrated on.
        milliseconds: (before, after) for one batch, on this machine; None: not measured.
        rest_milliseconds: of what is in no layer of the plan.
        engine: what it was timed in.
        plan: what each layer became, as ``plan.yaml`` has it.
        notes: what the reader should know, in lines.
        seconds: what each stage took, by name.
        pictures: what the dense and the compact model find in a few inputs, (H, W, 3) uint8, BGR.
    """

    layers: dict[str, LayerResult]
    parameters: tuple[int, int]
    multiply_adds: tuple[float, float]
    model: nn.Module = field(repr=False, compare=False)
    task: Task = field(repr=False, compare=False)
    milliseconds: tuple[float, float] | None = None
    rest_milliseconds: float | None = None
    engine: str = ""
    plan: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    pictures: list[np.ndarray] = field(default_factory=list, repr=False, compare=False)

    @property
    def predicted_milliseconds(self) -> float | None:
        """Of the compact model: the sum of its layers and the rest."""
        times = [layer.milliseconds for layer in self.layers.values()]
        if self.rest_milliseconds is None or None in times:
            return None
        return self.rest_milliseconds + sum(time[1] for time in times if time)

    def __str__(self) -> str:
        """Size, arithmetic and time before and after; the largest errors; what the stages took."""
        totals = {
            "parameters (millions)": [count / 1e6 for count in self.parameters],
            "multiply-adds (billions)": [count / 1e9 for count in self.multiply_adds],
        }
        if self.milliseconds is not None:
            totals["ms per batch"] = list(self.milliseconds)
        lines = [
            f"{what}: {before:.4g} -> {after:.4g} ({before / max(after, 1e-12):.2f}x)"
            for what, (before, after) in totals.items()
        ]
        if self.predicted_milliseconds is not None:
            lines[-1] += f", in {self.engine}; {self.predicted_milliseconds:.4g} was predicted"
        errors = {name: x.error for name, x in self.layers.items() if x.error is not None}
        worst = sorted(errors, key=errors.__getitem__, reverse=True)[:WORST]
        if worst:
            lines.append(f"largest errors of {len(self.layers)} layers:")
            width = max(map(len, worst))
            lines += [
                f"  {name:{width}}  {errors[name]:.4f}  {self.layers[name].plan}" for name in worst
            ]
        if self.seconds:
            stages = ", ".join(f"{stage} {took:.0f}" for stage, took in self.seconds.items())
            lines.append(f"took {sum(self.seconds.values()):.0f} s: {stages}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def save(self, folder: str | os.PathLike) -> None:
        """Write model.pth, plan.yaml, report.html, report.md and layers.png to a new folder.

        It is there whole or not at all. For a detectron2 model it also gets the config.yaml that
        loads it.

        Raises:
            InputError: the folder exists already, or cannot be written; weights are not finite.
        """
        output = os.fspath(folder)
        with new_folder(output) as temporary:
            self.write(temporary, output)

    def write(self, folder: str, output: str) -> None:
        """The files of :meth:`save`, to a folder which is at ``output`` when all is written."""
        from ..reports.compression import write_report  # draws with matplotlib
        from ..reports.page import write_page

        check_finite(f"{output}: not written", self.model.state_dict())
        self.task.save(self, folder, output)
        write_plan(self.plan, os.path.join(folder, "plan.yaml"))
        write_report(self, folder)
        write_page(self, folder)
