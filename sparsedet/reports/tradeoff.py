"""Accuracy against speed against size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle, product
from operator import itemgetter

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .style import COLORS, save_figure, tidy


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
    colors = [color for _, color in zip(names, cycle(COLORS))]
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
