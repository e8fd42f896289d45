"""What a compression did to a model and to each of its layers: a page in Markdown and a plot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..files import replacing
from ..timing import environment
from .style import COLORS, save_figure, tidy
from .tables import pipe_table

if TYPE_CHECKING:
    from ..compress.result import Result

LEGEND = (
    "Error is the mean square error of a layer's output on the calibration data, as a share of the "
    "output's variance, both weighed by how much they change the model's answers where that is "
    "known; the layer's input comes from the compressed layers below. Multiply-adds are those of "
    "convolutions and fully connected layers in one batch of the size at which the model is tested."
)

PLOT = "layers.png"


def write_report(result: Result, folder: str) -> None:
    """Write ``report.md`` and, where any layer is compressed, ``layers.png``, which it shows.

    Args:
        result: of a compression; what was not measured is ``n/a``.
        folder: an existing one.
    """
    parts = ["# Compression", pipe_table(*total_rows(result)), *result.notes]
    if result.layers:
        _plot(result, os.path.join(folder, PLOT))
        headings, rows = layer_rows(result)
        table = pipe_table(headings, rows, left=[0, 1, len(headings) - 1])
        parts += [table, LEGEND, f"![layer by layer]({PLOT})"]
    if line := times(result):
        parts.append(line)
    with replacing(os.path.join(folder, "report.md")) as temporary:
        Path(temporary).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _timed(result: Result) -> bool:
    return any(layer.milliseconds is not None for layer in result.layers.values())


def times(result: Result) -> str:
    """How times were measured, and what the layers' foretold; "" where there are none."""
    if not _timed(result) and result.milliseconds is None:
        return ""
    facts = ", ".join(f"{name} {value}" for name, value in environment().items())
    place = f" in {result.engine}" if result.engine else ""
    line = f"Times are medians{place}, measured with {facts}."
    if result.predicted_milliseconds is not None:
        line += f" From those of the layers {result.predicted_milliseconds:.2f} ms were predicted."
    return line


def total_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """Headings, and what the whole model costs before and after."""
    totals = [
        ("parameters", result.parameters, _count),
        ("multiply-adds", result.multiply_adds, _count),
    ]
    if result.milliseconds is not None:
        totals.append(("ms", result.milliseconds, _milliseconds))
    rows = [
        [name, form(before), form(after), f"{before / after:.1f}x" if after else "n/a"]
        for name, (before, after), form in totals
    ]
    return ["", "before", "after", "ratio"], rows


def layer_rows(result: Result) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings, and a row for each layer."""
    names, layers = list(result.layers), list(result.layers.values())
    columns = {
        "layer": names,
        "becomes": [str(layer.plan) for layer in layers],
        "weights": [_change(layer.weights, _count) for layer in layers],
        "multiply-adds": [_change(layer.multiply_adds, _count) for layer in layers],
    }
    if _timed(result):
        columns["ms"] = [_change(layer.milliseconds, _milliseconds) for layer in layers]
    columns["error"] = [_error(layer.error) for layer in layers]
    columns["of weights alone"] = [_error(layer.error_alone) for layer in layers]
    columns["samples"] = [str(layer.samples) for layer in layers]
    columns["note"] = [layer.note for layer in layers]
    return list(columns), list(zip(*columns.values()))


def _change(values: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    return "n/a" if values is None else " → ".join(map(form, values))


def _count(value: float) -> str:
    """14.71 M, 42.30 G, 540."""
    return EngFormatter(places=2)(value) if value >= 1000 else f"{value:.0f}"


def _milliseconds(value: float) -> str:
    return f"{value:.2f}"


def _error(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _plot(result: Result, path: str) -> None:
    """Weights, work and error in three panels; the layers from top to bottom as they run."""
    names, layers = list(result.layers), list(result.layers.values())
    figure = Figure(figsize=(11, 1.2 + 0.28 * max(len(names), 4)), layout="constrained")
    size, work, error = figure.subplots(1, 3, sharey=True)
    colors = {"dense": COLORS[0], "compressed": COLORS[1]}

    _bars(size, "weights (logarithmic)", [layer.weights for layer in layers], colors)
    size.set(xscale="log", xlim=(min(layer.weights[1] for layer in layers) / 2, None))
    size.xaxis.set_major_formatter(EngFormatter(sep=""))
    size.set_yticks(range(len(names)), names)
    size.set_ylim(len(names) - 0.4, -0.6)
    if not _timed(result):
        _bars(work, "multiply-adds", [layer.multiply_adds for layer in layers], colors)
        work.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        _bars(work, "time (ms)", [layer.milliseconds or (None, None) for layer in layers], colors)
    colors = {"weights alone": COLORS[4], "calibrated": COLORS[1]}
    _bars(error, "error", [(layer.error_alone, layer.error) for layer in layers], colors)
    # Beyond 1 a constant would do better; how much better would only squeeze the others.
    error.set_xlim(0, min(1, error.get_xlim()[1]))
    save_figure(figure, path)


def _bars(
    axes: Axes,
    label: str,
    pairs: Sequence[tuple[float | None, float | None]],
    colors: Mapping[str, str],
) -> None:
    """Two horizontal bars for every layer, where there are numbers."""
    for (name, color), values, shift in zip(colors.items(), zip(*pairs), (-0.2, 0.2)):
        places = np.arange(len(pairs)) + shift
        axes.barh(places, np.array(values, float), height=0.4, color=color, label=name)
    axes.set_xlabel(label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2, frameon=False)
    axes.tick_params(axis="y", length=0)
    tidy(axes)
    axes.grid(visible=False, axis="y")
