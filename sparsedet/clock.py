"""The one clock of all measurements."""

from __future__ import annotations

import time

import torch


def now() -> float:
    """Seconds since some start, once a GPU in use has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
