"""Running an exported detector: neither torch nor detectron2 is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import InputError
from ..images import read_image
from .classifier import OtherTask, is_classifier
from .engines import load_graph
from .model_info import ModelInfo
from .seal import check_seal


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


class Detector:
    """An exported detector, which answers as detectron2's ``DefaultPredictor`` does.

    Args:
        path: a file that sparsedet export wrote, .onnx, or .xml for OpenVINO alone.
        engine: "onnxruntime" or "openvino".
        threads: of the CPU; the engine's own choice if None.
        precision: what the engine computes in: "f32", or "bf16" in OpenVINO alone, where the
            processor has it. What is int8 in the file stays so.

    Raises:
        InputError: the engine is not installed or lacks the precision; the file is missing,
            truncated, or another model's.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        engine: str = "onnxruntime",
        threads: int | None = None,
        precision: str = "f32",
    ):
        self.path = path = os.fspath(path)
        if os.path.isfile(path):
            check_seal(path)  # before an engine, which may die of it, sees what is damaged
        self._graph, metadata = load_graph(path, engine, threads, precision)
        if is_classifier(metadata):
            raise OtherTask(f"{path}: a classifier, which sparsedet.Classifier runs")
        try:
            self.info = ModelInfo.from_json(metadata)
        except (RecursionError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: no sparsedet metadata in it; write it with sparsedet export"
            ) from error

    def __call__(self, image: np.ndarray | str | os.PathLike) -> Detections:
        """Detect in (H, W, 3) uint8, BGR, or in an image file.

        Raises:
            InputError: the file cannot be read, the image is too narrow for the model, or the
                model fails.
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_image(os.fspath(image))
        height, width = image.shape[:2]
        pixels = preprocess(image, self.info)
        boxes, scores, classes = self._run(pixels)
        new_height, new_width = pixels.shape[:2]
        boxes = boxes * np.array([width / new_width, height / new_height] * 2, np.float32)
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        classes = classes[kept]
        names = [self.info.class_names[c] for c in classes]
        return Detections(boxes[kept], scores[kept], classes, names)

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N, 4) float, scores (N,) and classes (N,) of the graph, if that is what it gives.

        Raises:
            InputError: the engine fails, or gives anything else.
        """
        try:
            boxes, scores, classes = self._graph(pixels)
        except Exception as error:  # each engine has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path}: the engine cannot run it: {reason}") from error
        count = len(scores) if np.ndim(scores) == 1 else -1
        if (
            (np.shape(boxes), np.shape(classes)) != ((count, 4), (count,))
            or [boxes.dtype.kind, scores.dtype.kind, classes.dtype.kind] != ["f", "f", "i"]
            or not (np.isfinite(boxes).all() and np.isfinite(scores).all())
            or not ((0 <= classes) & (classes < len(self.info.class_names))).all()
        ):
            raise InputError(f"{self.path}: it gives no boxes, scores and classes of its names")
        return boxes, scores, classes

    def above(self, score: float) -> Callable[[np.ndarray], Detections]:
        """This detector, with only the detections of a greater score.

        Raises:
            InputError: the exported model itself has a greater threshold.
        """
        least = self.info.score_threshold
        if score < least:
            raise InputError(
                f"a score threshold of {score}: {self.path} was exported with "
                f"MODEL.ROI_HEADS.SCORE_THRESH_TEST {least}, and gives nothing below"
            )
        return lambda image: self(image).above(score)


def preprocess(image: np.ndarray, info: ModelInfo) -> np.ndarray:
    """(H, W, 3) uint8 BGR to what the graph reads, resized as detectron2's ``ResizeShortestEdge``.

    Raises:
        InputError: the image is too narrow for the model.
        ValueError: not such an array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    new_height, new_width = resized_shape(height, width, info.min_size, info.max_size)
    if min(new_height, new_width) < info.smallest_side:
        raise InputError(f"{width} x {height} pixels are too narrow for the model")
    if info.format == "RGB":
        image = image[:, :, ::-1]
    if (new_height, new_width) == (height, width):
        return np.ascontiguousarray(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((new_width, new_height), Image.Resampling.BILINEAR))


def resized_shape(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width whose shorter is ``min_size``, if the longer then is within ``max_size``."""
    if min_size == 0:
        return height, width
    # Operation by operation as detectron2 does it, for the same rounding.
    scale = min_size / min(height, width)
    new_height, new_width = scale * height, scale * width
    if height < width:
        new_height = min_size
    else:
        new_width = min_size
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)
