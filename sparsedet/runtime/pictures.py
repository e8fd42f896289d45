"""What was found, drawn on the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..drawing import Color, color, draw_boxes, draw_regions, draw_skeletons, draw_texts
from .detections import Detections
from .masks import Masks


def annotate(image: np.ndarray, found: Detections) -> np.ndarray:
    """A copy of (H, W, 3) uint8, BGR, with what was found in it.

    A panoptic or a semantic map is drawn alone; otherwise masks, boxes with classes and scores, and
    skeletons.
    """
    if found.panoptic is not None or found.semantic is not None:
        regions = list(_regions(found))
        picture = draw_regions(image, [(mask, rgb) for mask, rgb, _ in regions])
        return draw_texts(picture, [(name, mask) for mask, _, name in regions])
    known = found.labels
    # The best is drawn last, over the others.
    worst_first = range(len(found) - 1, -1, -1)
    if found.masks is not None:
        colors = [color(c, known.class_colors) for c in found.classes.tolist()]
        image = draw_regions(image, ((found.masks[i], colors[i]) for i in worst_first))
    labels = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores)]
    boxes, classes = found.boxes[::-1], found.classes[::-1].tolist()
    picture = draw_boxes(image, boxes, classes, labels[::-1], known.class_colors)
    if found.keypoints is not None:
        skeleton, colors = known.skeleton, known.skeleton_colors
        picture = draw_skeletons(picture, found.keypoints[::-1], skeleton, colors)
    return picture


def rescaled(found: Detections, scale: tuple[float, float], size: tuple[int, int]) -> Detections:
    """What was found, for a copy of the image.

    Args:
        scale: by what x and y have grown.
        size: height and width of the copy.
    """
    boxes = (found.boxes * [*scale, *scale]).astype(np.float32)
    masks, keypoints = found.masks, found.keypoints
    if masks is not None:
        masks = Masks(masks.probabilities, boxes, size)
    if keypoints is not None:
        keypoints = keypoints * [*scale, 1]
    found = replace(found, boxes=boxes, masks=masks, keypoints=keypoints)
    if found.semantic is not None:
        found = replace(found, semantic=_nearest(found.semantic, size))
    if found.panoptic is not None:
        segments = replace(found.panoptic, ids=_nearest(found.panoptic.ids, size))
        found = replace(found, panoptic=segments)
    return found


def _nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, values.shape))
    return values[rows][:, columns]


def _regions(found: Detections) -> Iterator[tuple[np.ndarray, Color, str]]:
    """Mask, colour and name of each segment, or of each class of a semantic map."""
    known = found.labels
    if found.panoptic is not None:
        for segment in found.panoptic.segments:
            palette = known.class_colors if segment.isthing else known.stuff_colors
            # Things and stuff of the same number must differ.
            number = segment.category_id if segment.isthing or palette else -segment.category_id - 1
            yield found.panoptic.ids == segment.id, color(number, palette), segment.name
    elif found.semantic is not None:
        for number in np.unique(found.semantic).tolist():
            rgb = color(number, known.stuff_colors)
            yield found.semantic == number, rgb, known.stuff_names[number]
