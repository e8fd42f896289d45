"""Keypoints of detections, found in the maps that the graph gives of each one's box."""

from __future__ import annotations

import cv2
import numpy as np


def maps_to_keypoints(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The best place of each map, as detectron2's ``heatmaps_to_keypoints`` finds it.

    A map is enlarged to the pixels of its box by cubic interpolation. The score is its softmax
    there, over as many places as the map has before: boxes of all sizes compare.

    Args:
        maps: (N, K, S, S) float32, logits.
        boxes: (N, 4) float32, x0 y0 x1 y1.

    Returns:
        (N, K, 3) float32, x, y and score of each.
    """
    found = np.zeros((*maps.shape[:2], 3), np.float32)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        width, height = max(x1 - x0, np.float32(1)), max(y1 - y0, np.float32(1))
        columns, rows = int(np.ceil(width)), int(np.ceil(height))
        for k, small in enumerate(maps[i]):
            large = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_CUBIC)
            y, x = divmod(int(large.argmax()), columns)
            score = 1 / np.exp(small - large[y, x]).sum()
            found[i, k] = (
                x0 + np.float32(x + 0.5) * (width / columns),
                y0 + np.float32(y + 0.5) * (height / rows),
                score,
            )
    return found
