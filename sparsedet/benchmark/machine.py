"""What a machine can do at best: multiply and move numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..timing import milliseconds, take_turns

SIZE = 2048  # of the square matrices that are multiplied
BYTES = 2**28  # that are copied: more than any cache holds
ROUNDS = 5


@dataclass(frozen=True)
class Machine:
    """The best rates seen."""

    multiply_adds_per_second: float
    bytes_per_second: float

    def __str__(self) -> str:
        return (
            f"{self.multiply_adds_per_second / 1e9:.0f} G multiply-adds/s in a matrix product, "
            f"{self.bytes_per_second / 1e9:.1f} GB/s read and written"
        )


def measure_machine(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Machine:
    """Time a matrix product and a copy with as many threads as PyTorch uses; under a second."""
    a, b = torch.ones(2, SIZE, SIZE, dtype=dtype, device=device)
    product = torch.empty_like(a)
    source, target = torch.ones(2, BYTES, dtype=torch.int8, device=device)
    return Machine(
        multiply_adds_per_second=SIZE**3 / _least_seconds(partial(torch.mm, a, out=product), b),
        bytes_per_second=2 * BYTES / _least_seconds(target.copy_, source),
    )


def _least_seconds(function: Callable[[torch.Tensor], object], x: torch.Tensor) -> float:
    turns = take_turns([partial(milliseconds, function, [x])], ROUNDS)
    return min(ms for [ms] in turns) / 1000
