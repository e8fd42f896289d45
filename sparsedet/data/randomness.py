"""Random states as a function of a seed and of counters, so that none has to be kept."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What is random in a run; each has counters of its own.
SAMPLE, STEP = 0, 1


def derived_seed(seed: int, *counters: int) -> int:
    """32 bits that ``seed`` and ``counters``, none of them negative, determine."""
    return int(np.random.SeedSequence((seed, *counters)).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of Python, NumPy and torch on the CPU follow ``seed`` within the block alone.

    Args:
        seed: of 32 bits.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
