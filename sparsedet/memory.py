"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3).
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Let glibc keep memory that is freed for what comes next, instead of giving it back.

    By default it maps every tensor of more than 32 MB anew, and the system clears each page of it
    when it is first written. That takes a third of the time of an R50-FPN's trunk at 600x1000
    (docs/performance.md). It counts for the whole process, which keeps its largest size until it
    ends. Who sets malloc's own environment variables is obeyed instead.

    Returns:
        whether it is so now; other C libraries (musl, macOS, Windows) have no such setting.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
