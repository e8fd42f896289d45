"""The class of every pixel, of the scores that the graph gives of a coarser grid."""

from __future__ import annotations

import cv2
import numpy as np


def semantic_map(
    scores: np.ndarray, stride: int, seen: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """The best class of each pixel, as detectron2's ``sem_seg_postprocess`` and argmax find it.

    The scores of one class after another are enlarged to the image that the graph saw, with its
    padding, cut to what was seen, and resized: all of them at once would be gigabytes.

    Args:
        scores: (C, h, w) float32.
        stride: pixels of the seen image to one of ``scores``.
        seen: height and width of the image that the graph saw.
        size: height and width of the map.

    Returns:
        (height, width) of the smallest unsigned integers that hold C - 1.
    """
    best = np.full(size, -np.inf, np.float32)
    classes = np.zeros(size, np.min_scalar_type(len(scores) - 1))
    for number, small in enumerate(scores):
        whole = _resize(small, small.shape[0] * stride, small.shape[1] * stride)
        values = _resize(np.ascontiguousarray(whole[: seen[0], : seen[1]]), *size)
        better = values > best  # of equal ones the first
        classes[better] = number
        np.copyto(best, values, where=better)
    return classes


def _resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
