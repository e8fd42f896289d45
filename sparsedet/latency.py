"""Models timed side by side, as they run in inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .hooks import evaluating
from .timing import milliseconds, take_turns


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: median, and the 10th and 90th percentile."""

    median: float
    p10: float
    p90: float


def compare_latency(
    models: Mapping[str, Callable[[Any], Any]],
    inputs: Sequence[Any],
    rounds: int = 10,
    warmup: int = 2,
    progress: bool = False,
) -> dict[str, Latency]:
    """Time every model on every input, A B A B ..., on the same inputs in the same order.

    Modules are timed in eval mode and left as they were. A round is one pass over the inputs;
    the first ``warmup`` rounds are not counted. With inputs of several sizes, the percentiles
    spread over the sizes too.

    Args:
        inputs: each is the one argument of a call, for a detectron2 model a list of dicts.
        progress: show a bar.
    """
    calls = [partial(milliseconds, model, [x]) for x in inputs for model in models.values()]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        for model in models.values():
            if isinstance(model, nn.Module):
                stack.enter_context(evaluating(model))
        turns = take_turns(calls, rounds, warmup=warmup)
        times = np.array(list(tqdm(turns, "latency", rounds, disable=not progress, unit="round")))
    return {
        name: Latency(*np.percentile(times[:, i :: len(models)], [50, 10, 90]).tolist())
        for i, name in enumerate(models)
    }
