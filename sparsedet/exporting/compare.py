"""How far two runs of one detector on one image are apart."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torchvision.ops import box_iou

from ..errors import InputError
from ..runtime.detections import Detections
from ..runtime.panoptic import Panoptic

# The differences that f32 may have.
PIXELS, SCORE = 0.5, 0.001
# Shares that rounding may turn: pixels at the edge of a mask or between two classes, and keypoints
# that have two best places beside each other.
SHARE = 0.01
KEYPOINTS = 0.1
SHARES = {
    "masks": "the pixels of masks",
    "keypoints": "the keypoints",
    "semantic": "the pixels of the semantic map",
    "panoptic": "the pixels of the panoptic map",
}


@dataclass(frozen=True)
class Difference:
    """Between the detections of a same class that overlap by half or more, each with its nearest.

    Attributes:
        matched: pairs.
        unmatched: detections of either run that have no counterpart.
        pixels: the largest difference of a coordinate; 0 without pairs.
        score: the largest difference of a score, of keypoints too; 0 without pairs.
        masks: pixels in one mask of a pair and not in the other, but for one that rounding may
            turn, to those in either.
        keypoints: the share of keypoints that lie more than a pixel apart.
        semantic: the share of pixels of another class.
        panoptic: the share of pixels of another class of things or stuff.

    The last four are None where the model gives no such thing.
    """

    matched: int
    unmatched: int
    pixels: float
    score: float
    masks: float | None = None
    keypoints: float | None = None
    semantic: float | None = None
    panoptic: float | None = None

    def __str__(self) -> str:
        """In words."""
        shares = [
            f"{getattr(self, name):.2%} of {what} differ"
            for name, what in SHARES.items()
            if getattr(self, name) is not None
        ]
        if self.matched or self.unmatched:
            shares = [
                f"{self.matched} detections, boxes within {self.pixels:.4f} pixels",
                f"scores within {self.score:.6f}",
                f"{self.unmatched} without a counterpart",
                *shares,
            ]
        elif self.semantic is None:
            return "neither detects anything, so nothing was compared"
        return ", ".join(shares)


def compare(expected: Detections, found: Detections, floor: float = 0.0) -> Difference:
    """Match two runs; detections that have no score above ``floor`` need no counterpart.

    Raises:
        InputError: one run has masks, keypoints or maps that the other has not.
    """
    for name in ("masks", "keypoints", "semantic", "panoptic"):
        runs = [getattr(run, name) is None for run in (expected, found)]
        if runs[0] != runs[1]:
            which = "the model" if runs[0] else "the file"
            raise InputError(f"{which} gives no {name}: these are not of the same model")
    i, j = _pairs(expected, found)
    lonely = np.concatenate((np.delete(expected.scores, i), np.delete(found.scores, j)))
    score = np.abs(expected.scores[i] - found.scores[j]).max(initial=0)
    keypoints = None
    if expected.keypoints is not None:
        apart = np.abs(expected.keypoints[i] - found.keypoints[j])
        score = apart[:, :, 2].max(initial=score)
        keypoints = _share((apart[:, :, :2] > 1).any(axis=2))
    return Difference(
        len(i),
        int((lonely > floor).sum()),
        float(np.abs(expected.boxes[i] - found.boxes[j]).max(initial=0)),
        float(score),
        None if expected.masks is None else _apart(expected.masks, found.masks, i, j),
        keypoints,
        None if expected.semantic is None else _share(expected.semantic != found.semantic),
        None
        if expected.panoptic is None
        else _share(_kinds(expected.panoptic) != _kinds(found.panoptic)),
    )


def _pairs(expected: Detections, found: Detections) -> np.ndarray:
    """(2, pairs): the indices of each detection and its counterpart."""
    overlap = box_iou(*(torch.from_numpy(f.boxes) for f in (expected, found)))
    overlap = overlap.nan_to_num().numpy()  # of boxes without an area
    overlap[expected.classes[:, None] != found.classes[None]] = 0
    pairs = []
    for i in range(len(expected)):  # the best first, each with what is left
        j = int(overlap[i].argmax()) if len(found) else 0
        if len(found) and overlap[i, j] >= 0.5:
            pairs.append((i, j))
            overlap[:, j] = 0
    return np.array(pairs, dtype=int).reshape(-1, 2).T


def _apart(expected, found, i: np.ndarray, j: np.ndarray) -> float:
    """Of the masks of pairs; one after another, as together they may be gigabytes."""
    differ = either = 0
    for a, b in zip(i, j):
        one, other = expected[a], found[b]
        differ += max(int((one ^ other).sum()) - 1, 0)  # of a mask of few pixels one is many
        either += int((one | other).sum())
    return differ / max(either, 1)


def _share(differ: np.ndarray) -> float:
    return float(differ.mean()) if differ.size else 0.0


def _kinds(found: Panoptic) -> np.ndarray:
    """(height, width): a number for each class of things, another for each of stuff, 0 for none."""
    kinds = [0, *(2 * s.category_id + s.isthing + 1 for s in found.segments)]
    return np.array(kinds)[found.ids]


def beyond_limits(apart: Difference) -> str:
    """What differs by more than f32 may, in words; "" if nothing does."""
    limits = {
        "unmatched": 0, "pixels": PIXELS, "score": SCORE, "masks": SHARE,
        "keypoints": KEYPOINTS, "semantic": SHARE, "panoptic": SHARE,
    }  # fmt: skip
    return ", ".join(
        f"{entry.name} ({getattr(apart, entry.name):.4g})"
        for entry in fields(apart)
        if (getattr(apart, entry.name) or 0) > limits.get(entry.name, np.inf)
    )
