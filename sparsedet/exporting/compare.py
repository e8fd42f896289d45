"""How far two runs of one detector on one image are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.detector import Detections


@dataclass(frozen=True)
class Difference:
    """Between the detections of a same class that overlap by half or more, each with its nearest.

    Attributes:
        matched: pairs.
        unmatched: detections of either run that have no counterpart.
        pixels: the largest difference of a coordinate; 0 without pairs.
        score: the largest difference of a score; 0 without pairs.
    """

    matched: int
    unmatched: int
    pixels: float
    score: float


def compare(expected: Detections, found: Detections, floor: float = 0.0) -> Difference:
    """Match two runs; detections that have no score above ``floor`` need no counterpart."""
    overlap = _iou(expected.boxes, found.boxes)
    overlap[expected.classes[:, None] != found.classes[None]] = 0
    pairs = []
    for i in range(len(expected)):  # the best first, each with what is left
        j = int(overlap[i].argmax()) if len(found) else 0
        if len(found) and overlap[i, j] >= 0.5:
            pairs.append((i, j))
            overlap[:, j] = 0
    i, j = np.array(pairs, dtype=int).reshape(-1, 2).T
    pixels = np.abs(expected.boxes[i] - found.boxes[j]).max(initial=0)
    score = np.abs(expected.scores[i] - found.scores[j]).max(initial=0)
    lonely = np.concatenate((np.delete(expected.scores, i), np.delete(found.scores, j)))
    return Difference(len(pairs), int((lonely > floor).sum()), float(pixels), float(score))


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (M, 4) and (N, 4): (M, N)."""
    corners = np.minimum(a[:, None, 2:], b[None, :, 2:]), np.maximum(a[:, None, :2], b[None, :, :2])
    inside = (corners[0] - corners[1]).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return inside / (areas[0][:, None] + areas[1][None] - inside).clip(1e-12)
