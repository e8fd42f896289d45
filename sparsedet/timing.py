"""The one clock of all measurements, and models timed side by side."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm


def now() -> float:
    """Seconds since some start, once a GPU in use has done all that it was given."""
    torch = sys.modules.get("torch")  # what is not loaded uses no GPU
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


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
) -> dict[str, Latency]:
    """Time every model on every input, A B A B ..., on the same inputs in the same order.

    Modules are timed in eval mode and left as they were. A round is one pass over the inputs;
    the first `warmup` rounds are not counted. With inputs of several sizes, the percentiles
    spread over the sizes too.

    Args:
        inputs: each is the one argument of a call, for a detectron2 model a list of dicts.
    """
    import torch
    from detectron2.evaluation import inference_context

    times = {name: [] for name in models}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        for model in models.values():
            if isinstance(model, torch.nn.Module):
                stack.enter_context(inference_context(model))
        for i in tqdm(range(warmup + rounds), desc="latency", unit="round"):
            for x in inputs:
                for name, model in models.items():
                    milliseconds = _time_call(model, x)
                    if i >= warmup:
                        times[name].append(milliseconds)
    return {
        name: Latency(*np.percentile(samples, [50, 10, 90]).tolist())
        for name, samples in times.items()
    }


def _time_call(model: Callable[[Any], Any], x: Any) -> float:
    start = now()
    model(x)
    return 1000.0 * (now() - start)


def environment() -> dict[str, str]:
    """What a timing depends on: versions of what is loaded, processor, threads."""
    import torch

    libraries = ("torch", "torchvision", "detectron2")
    facts = {
        "python": platform.python_version(),
        **{name: sys.modules[name].__version__ for name in libraries if name in sys.modules},
        "cpu": _cpu_name(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cpu_name() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
