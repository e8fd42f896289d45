"""Tables and plots of the rows that :func:`sparsedet.benchmark.side_by_side.benchmark` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.figure import Figure

from .style import COLORS, save_figure, tidy
from .tables import pipe_table


def speedups(rows: Sequence[Mapping], against: str) -> list[float | None]:
    """How many times faster each row is than the config ``against`` is in its engine and setting.

    None where there is no such row, or it is the row itself.
    """

    def place(row):
        return _engine(row), *_setting(row).values()

    references = {place(row): row for row in rows if row["config"] == against}
    factors = []
    for row in rows:
        reference = references.get(place(row), row)
        same = reference is row
        factors.append(None if same else reference["ms_median"] / row["ms_median"])
    return factors


def benchmark_table(rows: Sequence[Mapping], against: str | None = None) -> str:
    """Two tables in Markdown: the whole, and the stages with their bounds."""
    factors = [None] * len(rows) if against is None else speedups(rows, against)
    names = ["config", "engine", *_varied(rows)]
    headings = ["ms", "p10 to p90", "parameters", "multiply-adds", "file MB", "peak MB", "load ms"]
    whole = [
        [
            *_named(row, names),
            f"{row['ms_median']:.1f}" + (f" ({factor:.2f}x)" if factor else ""),
            f"{row['ms_p10']:.1f} to {row['ms_p90']:.1f}",
            f"{row['params'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            f"{row['file_bytes'] / 1e6:.1f}",
            f"{row['peak_rss_mb']:.0f}",
            "" if row["load_ms"] is None else f"{row['load_ms']:.0f}",
        ]
        for row, factor in zip(rows, factors)
    ]
    known = _stages(rows)
    stages = [
        [*_named(row, names), *(_stage_cell(row["stages"][stage]) for stage in known)]
        for row in rows
        if row["stages"]
    ]
    tables = [pipe_table([*names, *headings], whole, left=(0, 1))]
    if stages:
        headings = ["ms (bound)", *names[1:], *known]
        tables.append(pipe_table(headings, stages, left=(0, 1)))
    return "\n\n".join(tables)


def _named(row: Mapping, names: Sequence[str]) -> list[str]:
    known = {"config": row["config"], "engine": _engine(row), **_setting(row)}
    return [str(known[name]) for name in names]


def _engine(row: Mapping) -> str:
    return f"{row['engine']} {row['precision']}"


def _setting(row: Mapping) -> dict:
    size = f"{row['height']}x{row['width']}"
    return {"size": size, **{name: row[name] for name in ("proposals", "batch", "threads")}}


def _varied(rows: Sequence[Mapping]) -> list[str]:
    """The names of a setting that have several values."""
    settings = [_setting(row) for row in rows]
    return [name for name in settings[0] if len({setting[name] for setting in settings}) > 1]


def _stages(rows: Sequence[Mapping]) -> list[str]:
    """Those that any row tells, in their order."""
    return list(dict.fromkeys(stage for row in rows for stage in row["stages"]))


def _stage_cell(stage: Mapping) -> str:
    bound = stage["bound_ms"]
    return f"{stage['ms']:.1f}" + ("" if bound is None else f" ({bound:.1f})")


def plot_benchmark(rows: Sequence[Mapping], path: str) -> None:
    """Median times, with p10 to p90.

    In one setting a bar for each row, split by stage where that is known; otherwise a line for
    each config and engine, over the first thing that varies.

    Args:
        path: PNG to write
    """
    varied = _varied(rows)
    figure = _lines(rows, varied[0]) if varied else _bars(rows)
    save_figure(figure, path)


def _bars(rows: Sequence[Mapping]) -> Figure:
    figure = Figure(figsize=(8, 1.4 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip(_stages(rows), (*COLORS, "#9aa5b1")))
    for y, row in enumerate(rows):
        # Stages are medians of their own; as shares, they fill the bar of the whole.
        total = sum(stage["ms"] for stage in row["stages"].values())
        left = 0.0
        for stage, times in row["stages"].items():
            length = row["ms_median"] * times["ms"] / total
            axes.barh(y, length, left=left, color=colors[stage], label=stage)
            left += length
        if not row["stages"]:
            axes.barh(y, row["ms_median"], color="#c9ced6")
        spread = [[row["ms_median"] - row["ms_p10"]], [row["ms_p90"] - row["ms_median"]]]
        axes.errorbar(row["ms_median"], y, xerr=spread, color="#222222", capsize=3, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['config']}\n{_engine(row)}" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="time per batch (ms), median and 10th to 90th percentile", xlim=(0, None))
    tidy(axes)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
    if handles:
        axes.legend(handles.values(), handles, frameon=False, fontsize=8, loc="lower right")
    return figure


def _lines(rows: Sequence[Mapping], name: str) -> Figure:
    """A colour for each engine, a style for each config."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip(dict.fromkeys(map(_engine, rows)), cycle(COLORS)))
    styles = dict(zip(dict.fromkeys(row["config"] for row in rows), cycle(("--", "-", ":", "-."))))
    ticks = {}
    for config in styles:
        for engine in colors:
            line = [row for row in rows if (row["config"], _engine(row)) == (config, engine)]
            x = [row["height"] * row["width"] if name == "size" else row[name] for row in line]
            ticks.update(zip(x, (_setting(row)[name] for row in line)))
            y, low, high = ([row[f"ms_{k}"] for row in line] for k in ("median", "p10", "p90"))
            label = f"{config}, {engine}"
            axes.plot(x, y, marker="o", color=colors[engine], linestyle=styles[config], label=label)
            axes.fill_between(x, low, high, color=colors[engine], alpha=0.2, linewidth=0)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set(xlabel=name, xlim=(0, None), ylim=(0, None))
    axes.set_ylabel("time per batch (ms), median and 10th to 90th percentile")
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, handlelength=4)
    return figure
