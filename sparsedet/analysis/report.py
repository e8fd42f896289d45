"""Tables and plots of results: training curves, and size against speed against accuracy.

Results are dicts by model name, the first of which is the reference:
`{"dense": {"params", "gflops", "ms", "AP", "AP50", "voc_mAP"}, ...}`: parameters, billions of
multiply-adds and milliseconds per image, and the three metrics in percent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from operator import itemgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from tabulate import tabulate

from ..errors import InputError
from ..files import replacing

COLORS = ("#4c566a", "#d95f02", "#1b7f79", "#7b4fa3", "#b8860b", "#c2255c")

# key: heading, unit that is divided by, format, and whether it is a cost (compared by ratio)
COLUMNS = {
    "params": ("parameters", 1e6, "{:.2f} M", True),
    "gflops": ("GFLOPs", 1, "{:.2f}", True),
    "ms": ("ms per image", 1, "{:.1f}", True),
    "AP": ("COCO AP", 1, "{:.2f}", False),
    "AP50": ("AP50", 1, "{:.2f}", False),
    "voc_mAP": ("VOC mAP", 1, "{:.2f}", False),
}


def markdown_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """One row per model, in Markdown; costs with the factor saved, metrics with the difference.

    `0.40 M (3.1x)` is 3.1 times fewer than the first model has. What is missing or nan is `n/a`.
    """
    reference = next(iter(results.values()))
    rows = [
        [name] + [_cell(key, result, None if result is reference else reference) for key in COLUMNS]
        for name, result in results.items()
    ]
    headings = ["model"] + [heading for heading, *_ in COLUMNS.values()]
    return pipe_table(headings, rows)


def pipe_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Cells as they are in a Markdown table, the columns ``left`` aligned there."""
    align = ["left" if column in left else "right" for column in range(len(headings))]
    return tabulate(rows, headings, tablefmt="pipe", colalign=align, disable_numparse=True)


def _cell(key: str, result: Mapping[str, float], reference: Mapping[str, float] | None) -> str:
    _, unit, template, is_cost = COLUMNS[key]
    value = result.get(key, math.nan)
    if math.isnan(value):
        return "n/a"
    text = template.format(value / unit)
    base = math.nan if reference is None else reference.get(key, math.nan)
    if math.isnan(base) or (is_cost and value == 0):
        return text
    return text + (f" ({base / value:.1f}x)" if is_cost else f" ({value - base:+.2f})")


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
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "iteration" in record else None


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
        for (name, records), color in zip(runs.items(), _colors()):
            # detectron2 counts from 0: iteration 99 ends after 100 of them.
            points = [(r["iteration"] + 1, r[key]) for r in records if key in r]
            marker = "o" if key == "bbox/AP50" else None
            axes.plot(*zip(*points), color=color, label=name, marker=marker, markersize=4)
        axes.set(xlabel="iterations", ylabel=label, ylim=(0, None), xlim=(0, None))
        tidy(axes)
        axes.legend(frameon=False)
    save_figure(figure, path)


def plot_tradeoff(results: Mapping[str, Mapping[str, float]], path: str) -> None:
    """AP50 against milliseconds per image; the area of a bubble is the number of parameters.

    Args:
        results: with "params", "ms" and "AP50" each; AP50 nan, nothing detected, is drawn at 0
        path: PNG to write
    """
    names = list(results)
    ms, ap50, params = ([results[n][key] for n in names] for key in ("ms", "AP50", "params"))
    ap50 = np.nan_to_num(ap50)
    figure = Figure(figsize=(7, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    largest_area = 2500.0  # in square points
    areas = [largest_area * p / max(params) for p in params]
    colors = [color for _, color in zip(names, _colors())]
    axes.scatter(ms, ap50, s=areas, c=colors, alpha=0.45, linewidths=0)
    axes.scatter(ms, ap50, s=8, c=colors)

    spread = max(max(ap50) - min(ap50), 4.0)
    axes.set_xlim(0, 1.25 * max(ms))
    axes.set_ylim(min(ap50) - 0.5 * spread, max(ap50) + 0.5 * spread)
    axes.set(xlabel="time per image (ms)", ylabel="AP50 (%)")
    axes.set_title("area: number of parameters", loc="right", fontsize=9, color="#666666")
    tidy(axes)
    figure.draw_without_rendering()  # so that positions in points are final
    labels = [
        f"{name}\n{p / 1e6:.3g} M, {t:.{1 if t < 100 else 0}f} ms"
        for name, p, t in zip(names, params, ms)
    ]
    radii = [math.sqrt(area / math.pi) for area in areas]
    _label_bubbles(axes, list(zip(ms, ap50)), radii, labels, colors)
    save_figure(figure, path)


def _label_bubbles(axes, points, radii, labels, colors) -> None:
    """Put each label beside its bubble (radius in points), where it covers least, then nearest."""
    pixels_per_point = axes.figure.dpi / 72
    centers = axes.transData.transform(points)
    taken = []
    for (x, y), radius in zip(centers, radii):
        r = radius * pixels_per_point
        taken.append(Bbox.from_extents(x - r, y - r, x + r, y + r))
    sides = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    for point, center, radius, label, color in zip(points, centers, radii, labels, colors):
        text = axes.annotate(
            label, point, (0, 0), textcoords="offset points", fontsize=9, color=color
        )
        text.set_in_layout(False)
        size = text.get_window_extent().size
        places = []
        for gap, side in product((4, 20, 40, 60), sides):
            offset = np.multiply(side, radius + gap)
            middle = center + offset * pixels_per_point + np.multiply(side, size / 2)
            box = Bbox([middle - size / 2, middle + size / 2])
            overlaps = box.count_overlaps(taken) + 10 * (not _contains(axes.bbox, box))
            places.append((overlaps, gap, side, offset, box))
        _, gap, (dx, dy), offset, box = min(places, key=itemgetter(0))
        text.xyann = offset
        text.set(ha=("center", "left", "right")[dx], va=("center", "bottom", "top")[dy])
        if gap > 4:
            axes.annotate(
                "",
                point,
                xytext=offset,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": color, "shrinkA": 0, "shrinkB": 0},
            )
        taken.append(box)


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return bool((outer.min <= inner.min).all() and (inner.max <= outer.max).all())


def _colors():
    while True:
        yield from COLORS


def tidy(axes: Axes) -> None:
    """No box around the data, a light grid behind it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
