"""From what a graph gives of a resized image to what is in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .detections import Detections
from .keypoints import maps_to_keypoints
from .masks import Masks
from .model_info import ModelInfo
from .panoptic import combine, panoptic
from .semantic import semantic_map

Size = tuple[int, int]  # height, width


def is_answer(found: Mapping[str, np.ndarray], info: ModelInfo) -> bool:
    """Whether the shapes, types and values are those of a detector that ``info`` describes."""
    return all(
        (_is_map(value, info) if name == "semantic" else _is_detections(found, name, info))
        for name, value in found.items()
    )


def _is_detections(found: Mapping[str, np.ndarray], name: str, info: ModelInfo) -> bool:
    value, count = found[name], len(found["scores"]) if np.ndim(found["scores"]) == 1 else -1
    if name == "classes":
        known = value.dtype.kind == "i" and (0 <= value) & (value < len(info.class_names))
        return value.shape == (count,) and bool(np.all(known))
    names = info.labels.keypoint_names
    points = (len(names),) if names else value.shape[1:2]
    ends = {
        "boxes": (4,),
        "scores": (),
        "masks": value.shape[-1:] * 2,
        "keypoint_maps": (*points, *value.shape[-1:] * 2),
    }
    return value.shape == (count, *ends[name]) and _is_finite(value)


def _is_map(value: np.ndarray, info: ModelInfo) -> bool:
    return value.ndim == 3 and len(value) == len(info.labels.stuff_names) and _is_finite(value)


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind == "f" and bool(np.isfinite(value).all())


def read_answer(
    found: Mapping[str, np.ndarray], info: ModelInfo, seen: Size, size: Size
) -> Detections:
    """What is in an image of ``size``, of which the graph saw a copy of size ``seen``.

    Args:
        found: the outputs of the graph by name, checked by :func:`is_answer`.
    """
    boxes = found.get("boxes", np.zeros((0, 4), np.float32))
    scale = np.array([size[1] / seen[1], size[0] / seen[0]], np.float32)
    keypoints = None
    if "keypoint_maps" in found:
        keypoints = maps_to_keypoints(found["keypoint_maps"], boxes)
        keypoints[:, :, :2] *= scale
    boxes = (boxes * np.tile(scale, 2)).clip(0, np.array([*size[::-1]] * 2, np.float32))
    classes = found.get("classes", np.zeros(0, np.int64))
    detections = Detections(
        boxes,
        found.get("scores", np.zeros(0, np.float32)),
        classes,
        [info.class_names[c] for c in classes],
        Masks(found["masks"], boxes, size) if "masks" in found else None,
        keypoints,
        labels=info.labels,
    )
    detections = detections.select(np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1)))
    if "semantic" in found:
        detections = _with_maps(detections, found["semantic"], info, seen, size)
    return detections


def _with_maps(
    found: Detections, scores: np.ndarray, info: ModelInfo, seen: Size, size: Size
) -> Detections:
    semantic = semantic_map(scores, info.semantic_stride, seen, size)
    segments = None
    if info.panoptic:
        ids, kinds = combine(found.masks, found.scores, found.classes, semantic, info.panoptic)
        segments = panoptic(ids, kinds, info.class_names, info.labels.stuff_names)
    return replace(found, semantic=semantic, panoptic=segments)
