"""What was found, as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from .detections import Detections
from .rle import encode


def record(file: str, image: np.ndarray, found: Detections) -> dict[str, Any]:
    """The entry of an image in detections.json, see :class:`~.annotate.Annotator`."""
    height, width = image.shape[:2]
    entry: dict[str, Any] = {"file": file, "width": width, "height": height}
    entry["detections"] = [_detection(found, i) for i in range(len(found))]
    if found.panoptic is not None:
        entry["segments_info"] = [
            {
                "id": segment.id,
                "category_id": segment.category_id,
                "isthing": segment.isthing,
                "area": segment.area,
                "class": segment.name,
                "segmentation": encode(found.panoptic.ids == segment.id),
            }
            for segment in found.panoptic.segments
        ]
    elif found.semantic is not None:
        entry["semantic"] = [
            {
                "category_id": number,
                "area": area,
                "class": found.labels.stuff_names[number],
                "segmentation": encode(found.semantic == number),
            }
            for number, area in zip(
                *(values.tolist() for values in np.unique(found.semantic, return_counts=True))
            )
        ]
    return entry


def _detection(found: Detections, i: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "class": found.names[i],
        "score": round(float(found.scores[i]), 4),
        "box": [round(v, 2) for v in found.boxes[i].tolist()],
    }
    if found.masks is not None:
        entry["segmentation"] = encode(found.masks[i])
    if found.keypoints is not None:
        # COCO counts pixels from their centers, as detectron2's results for COCO do.
        shifted = found.keypoints[i] - np.array([0.5, 0.5, 0], np.float32)
        entry["keypoints"] = [round(v, 4) for v in shifted.ravel().tolist()]
    return entry
