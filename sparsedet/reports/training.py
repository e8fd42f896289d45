"""Loss and accuracy while training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLORS, save_figure, tidy


def read_metrics(path: str) -> list[dict]:
    """The lines of a detectron2 metrics.json, by iteration.

    A run resumed from an earlier iteration appends to the file: what it went over again replaces
    what stood there. A last line cut short by a crash is left out.
    """
    try:
        with open(path) as lines:
            records = [_parse(line) for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name a metrics.json") from error
    kept = []
    for record in filter(None, records):
        while kept and kept[-1]["iteration"] >= record["iteration"]:
            kept.pop()
        kept.append(record)
    if not kept:
        raise InputError(f"{path}: holds no metrics yet; train for at least 20 iterations")
    return kept


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except (RecursionError, ValueError):
        return None
    if not isinstance(record, dict):
        return None
    numbers = {key: value for key, value in record.items() if _is_number(value)}
    return numbers if type(numbers.get("iteration")) is int else None


def _is_number(value: Any) -> bool:
    """Which matplotlib can draw, as it cannot whole numbers of any length."""
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def plot_training_curves(metrics_files: Mapping[str, str], path: str) -> None:
    """Total loss and, where it was evaluated, AP50 against iterations, one line per run.

    Args:
        metrics_files: path of a metrics.json by name of the run
        path: PNG to write
    """
    runs = {name: read_metrics(file) for name, file in metrics_files.items()}
    evaluated = any("bbox/AP50" in record for records in runs.values() for record in records)
    panels = [("total_loss", "total loss")] + [("bbox/AP50", "AP50 (%)")] * evaluated
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for (name, records), color in zip(runs.items(), cycle(COLORS)):
            # detectron2 counts from 0: iteration 99 ends after 100 of them.
            points = [(r["iteration"] + 1, r[key]) for r in records if key in r]
            marker = "o" if key == "bbox/AP50" else None
            axes.plot(*zip(*points), color=color, label=name, marker=marker, markersize=4)
        axes.set(xlabel="iterations", ylabel=label, ylim=(0, None), xlim=(0, None))
        tidy(axes)
        axes.legend(frameon=False)
    save_figure(figure, path)
