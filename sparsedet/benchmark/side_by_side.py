"""Models and engines side by side: time, stage by stage, beside size and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ..latency import compare_latency
from ..timing import take_turns
from .stages import STAGES

Images = Sequence[np.ndarray]  # each (H, W, 3) uint8, BGR


@dataclass(frozen=True)
class Case:
    """One detector in one engine, ready to be timed.

    Attributes:
        config, engine, precision: what it is.
        run: images to the detections in each.
        params, multiply_adds: how many, the latter for one image as :func:`count_multiply_adds`
            counts them, of the model as its config builds it.
        file_bytes: of the file that holds the model.
        peak_rss_mb: peak resident memory of a process that loads it and runs it once, in MB.
        load_ms: milliseconds to load that file; None if the engine does not tell.
        time_stages: images to the milliseconds of each stage; None if the engine does not tell.
        bounds: milliseconds below which this machine cannot take a stage.
    """

    config: str
    engine: str
    precision: str
    run: Callable[[Images], Any]
    params: int
    multiply_adds: int
    file_bytes: int
    peak_rss_mb: float
    load_ms: float | None = None
    time_stages: Callable[[Images], Mapping[str, float]] | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)


def benchmark(
    cases: Sequence[Case], images: Images, proposals: int, rounds: int = 10
) -> list[dict]:
    """A row for each case, all timed in turn, A B A B ..., on one batch of equal images.

    Args:
        proposals: what the cases were made for, of each image; only noted in the rows.
        rounds: counted ones, after two to warm up; as many again for the stages.

    Returns:
        dicts of config, engine, precision, height, width, proposals, batch, threads, ms_median,
        ms_p10, ms_p90 (of the whole batch), params, multiply_adds, file_bytes, peak_rss_mb,
        load_ms, and stages: {stage: {"ms": median, "bound_ms": or None}}, empty where the engine
        does not tell.
    """
    height, width = images[0].shape[:2]
    whole = compare_latency(
        {str(i): case.run for i, case in enumerate(cases)}, [images], rounds, progress=True
    )
    stages = _compare_stages(cases, images, rounds)
    return [
        {
            "config": case.config,
            "engine": case.engine,
            "precision": case.precision,
            "height": height,
            "width": width,
            "proposals": proposals,
            "batch": len(images),
            "threads": torch.get_num_threads(),
            "ms_median": latency.median,
            "ms_p10": latency.p10,
            "ms_p90": latency.p90,
            "params": case.params,
            "multiply_adds": case.multiply_adds,
            "file_bytes": case.file_bytes,
            "peak_rss_mb": case.peak_rss_mb,
            "load_ms": case.load_ms,
            "stages": {
                stage: {"ms": ms, "bound_ms": case.bounds.get(stage)}
                for stage, ms in stages[i].items()
            },
        }
        for i, (case, latency) in enumerate(zip(cases, whole.values()))
    ]


def _compare_stages(cases: Sequence[Case], images: Images, rounds: int) -> list[dict]:
    telling = {i: case.time_stages for i, case in enumerate(cases) if case.time_stages is not None}
    with torch.inference_mode():
        turns = take_turns([partial(f, images) for f in telling.values()], rounds, warmup=0)
        samples = dict(zip(telling, zip(*turns)))
    return [
        {stage: float(np.median([t[stage] for t in samples[i]])) for stage in STAGES}
        if i in samples
        else {}
        for i in range(len(cases))
    ]
