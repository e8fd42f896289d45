"""Masks of detections, each known in its box, pasted where it lies in the image.

Bit for bit as detectron2's ``paste_masks_in_image`` does it in PyTorch on a CPU: bilinear samples
of the small mask at the centers of pixels, nothing around it, and a threshold. PyTorch multiplies
and adds with one rounding; so does this, by way of double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

THRESHOLD = 0.5
_PAD = 2  # zeros on each side, enough for both neighbours of a place outside


@dataclass(frozen=True)
class Masks:
    """N masks of an image, of which each is pasted when it is asked for: ``masks[i]``.

    ``np.asarray(masks)`` pastes them all, (N, height, width) bool. A slice, an array of indices or
    of bools gives fewer masks.

    Attributes:
        probabilities: (N, M, M) float32, that a place of the box belongs to the object.
        boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the image.
        size: height and width of the image.
    """

    probabilities: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            return paste(self.probabilities[index], self.boxes[index], self.size)
        return replace(self, probabilities=self.probabilities[index], boxes=self.boxes[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        pasted = np.zeros((len(self), *self.size), bool)
        for i, mask in enumerate(self):
            pasted[i] = mask
        return pasted if dtype is None else pasted.astype(dtype)


def paste(probabilities: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(M, M) float32 in the box x0 y0 x1 y1, float32, to (height, width) bool."""
    mask = np.zeros(size, bool)
    if probabilities.size and np.isfinite(box).all():
        rows, y, down = _samples(box[1], box[3], size[0], len(probabilities))
        columns, x, right = _samples(box[0], box[2], size[1], probabilities.shape[1])
        around = np.pad(probabilities, _PAD)  # what lies outside is nothing
        up, left = np.float32(1) - down, np.float32(1) - right
        above, below = around[y], around[y + 1]
        values = above[:, x] * (up[:, None] * left)
        for corner, weights in (
            (above[:, x + 1], up[:, None] * right),
            (below[:, x], down[:, None] * left),
            (below[:, x + 1], down[:, None] * right),
        ):
            values = _multiply_add(corner, weights, values)
        mask[rows, columns] = values >= THRESHOLD
    return mask


def _samples(
    start: np.float32, end: np.float32, length: int, count: int
) -> tuple[slice, np.ndarray, np.ndarray]:
    """Where pixels along one side of the image fall in a mask of ``count`` along the box.

    Returns:
        the pixels near the box; of each, the index in the padded mask of the last value before it,
        and how far it lies from that towards the next.
    """
    first = int(max(np.floor(start) - 1, 0))
    last = max(int(min(np.ceil(end) + 1, length)), first)
    half, one = np.float32(0.5), np.float32(1)
    centers = np.arange(first, last, dtype=np.float32) + half
    with np.errstate(divide="ignore", invalid="ignore"):  # of a box without an area
        places = (centers - start) / (end - start) * np.float32(2) - one
        places = _multiply_add(places + one, np.float32(count / 2), -half)
    places = np.nan_to_num(places, nan=-_PAD).clip(-_PAD, count)
    before = np.floor(places)
    return slice(first, last), before.astype(int) + _PAD, places - before


def _multiply_add(x: np.ndarray, y: np.ndarray | np.float32, z: np.ndarray | np.float32):
    """Float32, rounded once."""
    return (x.astype(np.float64) * y + z).astype(np.float32)
