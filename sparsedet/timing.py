"""The one clock of all measurements, how they take turns, and what they depend on; torch or not."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def now() -> float:
    """Seconds since some start, once a GPU in use has done all that it was given."""
    torch = sys.modules.get("torch")  # what is not loaded uses no GPU
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def milliseconds(function: Callable[[Any], Any], inputs: Iterable[Any]) -> float:
    """What a function takes for some inputs, one after another."""
    start = now()
    for x in inputs:
        function(x)
    return 1000 * (now() - start)


class Laps:
    """Seconds of one stage after another, from when it is made.

    Attributes:
        seconds: of each stage that ended, by name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = now()

    def end(self, stage: str) -> None:
        """What ran since the last end was this stage."""
        self._last, before = now(), self._last
        self.seconds[stage] = self._last - before


def take_turns(
    measurements: Sequence[Callable[[], T]], rounds: int, seconds: float = 0, warmup: int = 1
) -> Iterator[list[T]]:
    """Measure A B A B ..., so that what slows a machine down for a while hits all alike.

    Args:
        rounds: of which there are so many at least,
        seconds: and as many as take so long.
        warmup: rounds before, which do not count.

    Yields:
        for each round, what each measurement gives
    """
    for _ in range(warmup):
        for measure in measurements:
            measure()
    start, done = now(), 0
    while done < rounds or now() - start < seconds:
        yield [measure() for measure in measurements]
        done += 1


def environment() -> dict[str, str]:
    """What a time depends on: versions of what is loaded, processor, threads of torch."""
    facts = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "detectron2"):
        if sys.modules.get(name) is not None:
            facts[name] = sys.modules[name].__version__
    facts["cpu"] = _cpu_name()
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = str(torch.get_num_threads())
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
