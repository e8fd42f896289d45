"""What an exported file says about itself, beside the graph."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields

from .labels import Labels

KEY = "sparsedet"  # of the one text in the file's metadata
LARGEST = 2**14  # pixels of a side

BOXES = ["boxes", "scores", "classes"]
OUTPUTS = (*BOXES, "masks", "keypoint_maps", "semantic")
"""What a graph may give; the first three together or not at all."""


@dataclass(frozen=True)
class ModelInfo:
    """How to use an exported detector.

    Those with a default are in a file only where they differ from it: a detector of boxes alone
    says what it always said.

    Attributes:
        class_names: by class index.
        format: order of the channels that the graph reads, "BGR" or "RGB".
        min_size: pixels to which the shorter side of an image is resized; 0 for no resizing.
        max_size: pixels that the longer side then may not exceed.
        smallest_side: pixels that no side, after resizing, may fall below.
        score_threshold: the graph drops detections of no greater score.
        precision: of the weights, "f32", "f16" or "int8".
        version: of sparsedet, when it wrote the file.
        outputs: of the graph, in their order; some of OUTPUTS.
        semantic_stride: pixels of the image to one of "semantic".
        panoptic: empty, or how detections and semantic map are combined: "overlap", the share of a
            mask that better ones may cover, "area", the least of stuff in pixels, "score", the
            least of a detection.
        labels: more names, and colours.
    """

    class_names: list[str]
    format: str
    min_size: int
    max_size: int
    smallest_side: int
    score_threshold: float
    precision: str
    version: str
    outputs: list[str] = field(default_factory=BOXES.copy)
    semantic_stride: int = 1
    panoptic: dict[str, float] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)

    def to_json(self) -> str:
        plain = asdict(ModelInfo([], "", 0, 0, 0, 0.0, "", ""))
        always = {entry.name for entry in fields(self)[:8]}
        return json.dumps({k: v for k, v in asdict(self).items() if k in always or v != plain[k]})

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Raises ValueError or TypeError where ``text`` is not what :meth:`to_json` wrote."""
        entries = json.loads(text)
        info = cls(**{**entries, "labels": Labels(**entries.get("labels", {}))})
        texts = (*info.class_names, info.format, info.precision, info.version)
        sizes = (info.min_size, info.max_size, info.smallest_side, info.semantic_stride)
        if type(info.class_names) is not list or not all(type(value) is str for value in texts):
            raise ValueError("class_names, format, precision and version must be text")
        if not all(type(size) is int and 0 <= size <= LARGEST for size in sizes):
            raise ValueError(f"sizes must be 0 to {LARGEST}")
        if info.format not in ("BGR", "RGB") or (info.min_size and not info.max_size):
            raise ValueError("format must be BGR or RGB, and max_size at least 1")
        if type(info.panoptic) is not dict:
            raise ValueError("panoptic must be a mapping")
        numbers = (info.score_threshold, *info.panoptic.values())
        if not all(type(n) in (int, float) and not math.isnan(n) for n in numbers):
            raise ValueError("score_threshold and what is in panoptic must be numbers")
        info._check_outputs()
        info.labels.check()
        return info

    def _check_outputs(self) -> None:
        if type(self.outputs) is not list or not set(self.outputs) <= set(OUTPUTS):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}")
        if self.outputs[:3] != BOXES and self.outputs != ["semantic"]:
            raise ValueError("outputs must be boxes, scores and classes first, or semantic alone")
        if "semantic" in self.outputs and not (self.semantic_stride and self.labels.stuff_names):
            raise ValueError("a semantic map needs its stride, and stuff_names")
        if self.panoptic and (
            set(self.panoptic) != {"overlap", "area", "score"}
            or not {"masks", "semantic"} <= set(self.outputs)
        ):
            raise ValueError("panoptic needs overlap, area and score, masks and a semantic map")
