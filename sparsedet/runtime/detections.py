"""What was found in one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the image.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64.
        names: the name of each one's class.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those of a greater score."""
        count = int((self.scores > score).sum())
        return Detections(
            self.boxes[:count], self.scores[:count], self.classes[:count], self.names[:count]
        )
