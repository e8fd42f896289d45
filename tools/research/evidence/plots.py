"""Accuracy against size, a point for each row that was recorded."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from sparsedet.reports.style import COLORS, save_figure, tidy

from .studies import Row
from .tables import Records

KINDS = {
    "train": ("dense", COLORS[0], "o"),
    "compress": ("nothing trained", COLORS[1], "s"),
    "prune": ("channels pruned", COLORS[5], "P"),
    "finetune": ("fine-tuned, or trained on", COLORS[2], "^"),
    "scratch": ("compact from scratch", COLORS[4], "v"),
    "quantize": ("eight bits", COLORS[3], "D"),
}


def plot_sizes(rows: Mapping[str, list[Row]], records: Records, path: str) -> None:
    """A panel for each study with records: AP50 of every seed, against parameters.

    Args:
        path: PNG to write
    """
    studies = [group for group in rows.values() if any(row in records for row in group)]
    columns = min(2, len(studies))
    lines = -(-len(studies) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for group, axes in zip(studies, panels):  # the other way round it would take one panel more
        _panel(axes, [row for row in group if row in records], records)
        axes.set_title(group[0].study.title, fontsize=10)
    for axes in panels:
        axes.set_visible(False)  # an empty last place
    save_figure(figure, path)


def _panel(axes: Axes, rows: list[Row], records: Records) -> None:
    for kind, (label, color, marker) in KINDS.items():
        points = [records[row]["numbers"] for row in rows if row.do == kind]
        if points:
            x, y = ([point[key] for point in points] for key in ("params", "AP50"))
            axes.scatter(x, y, s=28, c=color, marker=marker, alpha=0.7, linewidths=0, label=label)
    axes.set(xscale="log", xlabel="parameters", ylabel="AP50 (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, loc="best")
