"""How far two runs of one detector on one image are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from ..runtime.detections import Detections


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
    overlap = box_iou(*(torch.from_numpy(f.boxes) for f in (expected, found)))
    overlap = overlap.nan_to_num().numpy()  # of boxes without an area
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
