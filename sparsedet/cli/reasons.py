"""What other libraries raise for the user's sake, in one line that says what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence

from ..errors import InputError

MEMORY = (
    "out of memory: use smaller images (INPUT.MIN_SIZE_TRAIN, INPUT.MAX_SIZE_TEST), or fewer "
    "at once (SOLVER.IMS_PER_BATCH, --num-images, --threads)"
)
# What is searched for in "Type: message", and the line; \1 is what the first brackets matched.
TABLE: Sequence[tuple[str, str]] = (
    (r"InputError: (.*)", r"\1"),
    (
        r"FloatingPointError: .*iteration=(\d+)",
        r"training diverged: at iteration \1 the loss is not a finite number; lower "
        "SOLVER.BASE_LR, or raise SOLVER.WARMUP_ITERS",
    ),
    (
        r"AssertionError: No valid data found in (.*?)\.?$",
        r"DATASETS.TRAIN: no image of \1 has an annotation to train on",
    ),
    (r"AssertionError: Dataset '(.*)' is empty", r"DATASETS: \1 has no images"),
    (
        r"Cannot find field 'gt_(masks|keypoints)'|'(keypoint)_names' does not exist",
        r"DATASETS.TRAIN has no \1\2 that MODEL.MASK_ON or MODEL.KEYPOINT_ON asks for",
    ),
    (r"OutOfMemoryError|DefaultCPUAllocator|[Cc]annot allocate memory|^MemoryError", MEMORY),
    (r"Insufficient memory|bad_alloc|Failed to allocate memory", MEMORY),
    (
        r"(Found no NVIDIA driver|Torch not compiled with CUDA|No CUDA GPUs|CUDA driver).*",
        r"\1: give MODEL.DEVICE cpu to work without a GPU",
    ),
    (
        r"Deformable Conv is not supported on CPUs",
        "detectron2 has no gradients of deformable convolutions on a CPU, and no modulated ones at "
        "all: take MODEL.DEVICE cuda",
    ),
    (r"EADDRINUSE|address already in use", "the port of --dist-url is taken; choose another"),
    (r"DataLoader worker .*(killed by signal: .*?)\.", rf"a data loader was \1; {MEMORY}"),
)


def reason(error: BaseException) -> str | None:
    """One line on an error of the user's, also from a worker process; None for any other."""
    text = origin(error)
    if isinstance(error, InputError):
        return " ".join(text.partition("InputError: ")[2].split())
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    for pattern, line in TABLE:
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return " ".join(match.expand(line).split())
    return _of_an_engine(error)


def origin(error: BaseException) -> str:
    """``Type: message``; where the message is a worker's traceback, what that ends with."""
    text = f"{type(error).__name__}: {error}"
    _, mark, last = text.rpartition("\n  File ")
    if not mark:
        return text
    lines = last.splitlines()[1:]
    start = next((i for i, line in enumerate(lines) if not line.startswith(" ")), 0)
    return "\n".join(lines[start:])


def _of_the_system(error: OSError) -> str:
    names = [os.fspath(name) for name in (error.filename, error.filename2) if name is not None]
    what = f"{' to '.join(map(str, names))}: " if names else ""
    advice = {
        errno.ENOSPC: "; free some",
        errno.EMFILE: "; see ulimit -n",
        errno.ENOMEM: f"; {MEMORY}",
    }
    return f"{what}{error.strerror}{advice.get(error.errno, '')}"


def _of_an_engine(error: BaseException) -> str | None:
    """What ONNX Runtime says; its classes have no common one of a public name."""
    if type(error).__module__.startswith("onnxruntime."):
        return f"ONNX Runtime: {' '.join(str(error).split())}"
    return None
