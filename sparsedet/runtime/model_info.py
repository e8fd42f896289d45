"""What an exported file says about itself, beside the graph."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

KEY = "sparsedet"  # of the one text in the file's metadata


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
        return cls(**json.loads(text))
