"""What was found in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .labels import Labels
from .masks import Masks
from .panoptic import Panoptic


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first; None is what the model does not look for.

    Attributes:
        boxes: (N, 4) float32, x0 y0 x1 y1 in pixels of the image.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64.
        names: the name of each one's class.
        masks: of each one, (height, width) bool; ``np.asarray(masks)`` holds all.
        keypoints: (N, K, 3) float32, x and y in pixels of the image, and a score.
        semantic: (height, width) integers, the index in ``labels.stuff_names`` of each pixel.
        panoptic: all things and stuff in one map, by other rules than the threshold of ``above``.
        labels: the names of stuff and keypoints, and colours.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: list[str]
    masks: Masks | np.ndarray | None = None
    keypoints: np.ndarray | None = None
    semantic: np.ndarray | None = None
    panoptic: Panoptic | None = None
    labels: Labels = field(default_factory=Labels)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those of a greater score; maps stay as they are."""
        return self.select(range(int((self.scores > score).sum())))

    def select(self, indices: Sequence[int] | np.ndarray) -> Detections:
        """Those of ``indices``, in that order; maps stay as they are."""
        chosen = np.asarray(indices, int)
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            names=[self.names[i] for i in chosen],
            masks=None if self.masks is None else self.masks[chosen],
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
        )

    def summary(self) -> tuple[int, str]:
        """How many of what, to be told in a line."""
        if self.panoptic is not None:
            return len(self.panoptic.segments), "segments"
        if self.semantic is not None:
            return len(np.unique(self.semantic)), "classes"
        return len(self), "detections"
