"""One map of all things and all stuff in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segment:
    """A part of the image.

    Attributes:
        id: its number in the map, from 1.
        category_id: the index of its class, among the things or among the stuff.
        isthing: whether it is a detected thing, else it is stuff.
        area: pixels.
        name: of its class.
    """

    id: int
    category_id: int
    isthing: bool
    area: int
    name: str


@dataclass(frozen=True)
class Panoptic:
    """Segments that do not overlap.

    Attributes:
        ids: (height, width) int32, the id of each pixel's segment, 0 where there is none.
        segments: by id.
    """

    ids: np.ndarray
    segments: list[Segment]


def combine(
    masks: Sequence[np.ndarray],
    scores: np.ndarray,
    classes: np.ndarray,
    semantic: np.ndarray,
    rules: Mapping[str, float],
) -> tuple[np.ndarray, list[tuple[int, bool]]]:
    """What detectron2's ``combine_semantic_and_instance_outputs`` does.

    Things come first, the best on top, unless better ones cover too much of them; stuff fills what
    is left, where that is enough. Class 0 of the semantic map stands for things, and gives nothing.

    Args:
        masks: (height, width) bool of each detection, best first.
        scores, classes: (N,) of the same.
        semantic: (height, width), the class of each pixel.
        rules: as in :class:`~sparsedet.runtime.model_info.ModelInfo`.

    Returns:
        the map of :class:`Panoptic`, and class and "is a thing" of segments 1, 2, ...
    """
    ids = np.zeros(semantic.shape, np.int32)
    found: list[tuple[int, bool]] = []
    for i, score in enumerate(scores.tolist()):
        if score < rules["score"]:
            break
        mask = masks[i]
        free = mask & (ids == 0)
        area, left = int(mask.sum()), int(free.sum())
        if area and (area - left) / area <= rules["overlap"]:
            found.append((int(classes[i]), True))
            ids[free] = len(found)
    for label in np.unique(semantic).tolist():
        mask = (semantic == label) & (ids == 0)
        if label and mask.sum() >= rules["area"]:
            found.append((label, False))
            ids[mask] = len(found)
    return ids, found


def panoptic(
    ids: np.ndarray,
    found: Sequence[tuple[int, bool]],
    class_names: Sequence[str],
    stuff_names: Sequence[str],
) -> Panoptic:
    """With names and areas; what :func:`combine` gives, or detectron2."""
    areas = np.bincount(ids.ravel(), minlength=len(found) + 1).tolist()
    segments = [
        Segment(i, category, thing, areas[i], (class_names if thing else stuff_names)[category])
        for i, (category, thing) in enumerate(found, start=1)
    ]
    return Panoptic(ids, segments)
