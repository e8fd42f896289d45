"""Models and engines side by side: time, stage by stage, beside size and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tabulate import tabulate

from .latency import compare_latency
from .report import COLORS, _save, _tidy
from .stages import STAGES

Images = Sequence[np.ndarray]  # each (H, W, 3) uint8, BGR


@dataclass(frozen=True)
class Engine:
    """One model, ready to run in one way.

    Attributes:
        config, name, precision: what it is.
        run: images to the detections in each.
        params, gflops: parameters, and billions of multiply-adds for one image as
            :func:`count_flops` counts them, of the model as its config builds it.
        file_bytes: of the file that holds the model.
        peak_rss_mb: peak resident memory of a process that loads it and runs it once, in MB.
        time_stages: images to the milliseconds of each stage; None if the engine does not tell.
        bounds: milliseconds below which this machine cannot take a stage.
    """

    config: str
    name: str
    precision: str
    run: Callable[[Images], Any]
    params: int
    gflops: float
    file_bytes: int
    peak_rss_mb: float
    time_stages: Callable[[Images], Mapping[str, float]] | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)


def benchmark(
    engines: Sequence[Engine], images: Images, proposals: int, rounds: int = 10
) -> list[dict]:
    """A row for each engine, all timed in turn, A B A B ..., on one batch of equal images.

    Args:
        proposals: what the engines were made for, of each image; only noted in the rows.
        rounds: counted ones, after two to warm up; as many again for the stages.

    Returns:
        dicts of config, engine, precision, height, width, proposals, batch, threads, ms_median,
        ms_p10, ms_p90 (of the whole batch), params, gflops, file_bytes, peak_rss_mb, and stages:
        {stage: {"ms": median, "bound_ms": or None}}, empty where the engine does not tell.
    """
    height, width = images[0].shape[:2]
    whole = compare_latency({str(i): e.run for i, e in enumerate(engines)}, [images], rounds)
    stages = _compare_stages(engines, images, rounds)
    return [
        {
            "config": engine.config,
            "engine": engine.name,
            "precision": engine.precision,
            "height": height,
            "width": width,
            "proposals": proposals,
            "batch": len(images),
            "threads": torch.get_num_threads(),
            "ms_median": latency.median,
            "ms_p10": latency.p10,
            "ms_p90": latency.p90,
            "params": engine.params,
            "gflops": engine.gflops,
            "file_bytes": engine.file_bytes,
            "peak_rss_mb": engine.peak_rss_mb,
            "stages": {
                stage: {"ms": ms, "bound_ms": engine.bounds.get(stage)}
                for stage, ms in stages[i].items()
            },
        }
        for i, (engine, latency) in enumerate(zip(engines, whole.values()))
    ]


def _compare_stages(engines: Sequence[Engine], images: Images, rounds: int) -> list[dict]:
    samples: list[list[Mapping]] = [[] for _ in engines]
    with torch.inference_mode():
        for _ in range(rounds):
            for engine, times in zip(engines, samples):
                if engine.time_stages is not None:
                    times.append(engine.time_stages(images))
    return [
        {stage: float(np.median([t[stage] for t in times])) for stage in STAGES} if times else {}
        for times in samples
    ]


def speedups(rows: Sequence[Mapping], against: str) -> list[float | None]:
    """How many times faster each row is than the config ``against`` is in its engine and precision.

    None where there is no such row, or it is the row itself.
    """
    references = {
        (row["engine"], row["precision"]): row for row in rows if row["config"] == against
    }
    factors = []
    for row in rows:
        reference = references.get((row["engine"], row["precision"]), row)
        same = reference is row
        factors.append(None if same else reference["ms_median"] / row["ms_median"])
    return factors


def benchmark_table(rows: Sequence[Mapping], against: str | None = None) -> str:
    """Two tables in Markdown: the whole, and the stages with their bounds."""
    factors = [None] * len(rows) if against is None else speedups(rows, against)
    headings = ["config", "engine", "ms", "p10 to p90", "parameters", "GFLOPs"]
    headings += ["file MB", "peak MB"]
    whole = [
        [
            row["config"],
            _engine(row),
            f"{row['ms_median']:.1f}" + (f" ({factor:.2f}x)" if factor else ""),
            f"{row['ms_p10']:.1f} to {row['ms_p90']:.1f}",
            f"{row['params'] / 1e6:.2f} M",
            f"{row['gflops']:.2f}",
            f"{row['file_bytes'] / 1e6:.1f}",
            f"{row['peak_rss_mb']:.0f}",
        ]
        for row, factor in zip(rows, factors)
    ]
    stages = [
        [row["config"], _engine(row), *(_stage_cell(row["stages"][stage]) for stage in STAGES)]
        for row in rows
        if row["stages"]
    ]
    tables = [_markdown(whole, headings)]
    if stages:
        tables.append(_markdown(stages, ["ms (bound)", "engine", *STAGES]))
    return "\n\n".join(tables)


def _engine(row: Mapping) -> str:
    return f"{row['engine']} {row['precision']}"


def _stage_cell(stage: Mapping) -> str:
    bound = stage["bound_ms"]
    return f"{stage['ms']:.1f}" + ("" if bound is None else f" ({bound:.1f})")


def _markdown(rows: list[list[str]], headings: list[str]) -> str:
    align = ["left", "left"] + ["right"] * (len(headings) - 2)
    return tabulate(rows, headings, tablefmt="pipe", colalign=align, disable_numparse=True)


def plot_benchmark(rows: Sequence[Mapping], path: str) -> None:
    """A bar for each row: its median time, with p10 to p90, split by stage where that is known.

    Args:
        path: PNG to write
    """
    figure = Figure(figsize=(8, 1.4 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = dict(zip(STAGES, (*COLORS, "#9aa5b1")))
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
    _tidy(axes)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
    if handles:
        axes.legend(handles.values(), handles, frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)
