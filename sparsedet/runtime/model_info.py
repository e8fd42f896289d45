"""What an exported file says about itself, beside the graph."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

KEY = "sparsedet"  # of the one text in the file's metadata
LARGEST = 2**14  # pixels of a side


@dataclass(frozen=True)
class ModelInfo:
    """How to use an exported detector.

    Attributes:
        class_names: by class index.
        format: order of the channels that the graph reads, "BGR" or "RGB".
        min_size: pixels to which the shorter side of an image is resized; 0 for no resizing.
        max_size: pixels that the longer side then may not exceed.
        smallest_side: pixels that no side, after resizing, may fall below.
        score_threshold: the graph drops detections of no greater score.
        precision: of the weights, "f32", "f16" or "int8".
        version: of sparsedet, when it wrote the file.
    """

    class_names: list[str]
    format: str
    min_size: int
    max_size: int
    smallest_side: int
    score_threshold: float
    precision: str
    version: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Raises ValueError or TypeError where ``text`` is not what :meth:`to_json` wrote."""
        info = cls(**json.loads(text))
        texts = (*info.class_names, info.format, info.precision, info.version)
        sizes = (info.min_size, info.max_size, info.smallest_side)
        if type(info.class_names) is not list or not all(type(value) is str for value in texts):
            raise ValueError("class_names, format, precision and version must be text")
        if not all(type(size) is int and 0 <= size <= LARGEST for size in sizes):
            raise ValueError(f"min_size, max_size and smallest_side must be 0 to {LARGEST}")
        if info.format not in ("BGR", "RGB") or (info.min_size and not info.max_size):
            raise ValueError("format must be BGR or RGB, and max_size at least 1")
        if type(info.score_threshold) not in (int, float) or math.isnan(info.score_threshold):
            raise ValueError("score_threshold must be a number")
        return info
