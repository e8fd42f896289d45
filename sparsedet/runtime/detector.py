"""Running an exported detector: neither torch nor detectron2 is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import overload

import numpy as np
from PIL import Image

from ..errors import InputError
from ..images import read_image
from .answers import is_answer, read_answer
from .classifier import OtherTask, is_classifier
from .detections import Detections
from .engines import load_graph
from .model_info import ModelInfo

Picture = np.ndarray | str | os.PathLike  # (H, W, 3) uint8, BGR, or a file


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
        self._graph, metadata = load_graph(path, engine, threads, precision)
        if is_classifier(metadata):
            raise OtherTask(f"{path}: a classifier, which sparsedet.Classifier runs")
        try:
            self.info = ModelInfo.from_json(metadata)
        except (RecursionError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: no sparsedet metadata in it; write it with sparsedet export"
            ) from error

    @overload
    def __call__(self, image: Picture) -> Detections: ...

    @overload
    def __call__(self, image: list[Picture]) -> list[Detections]: ...

    def __call__(self, image: Picture | list[Picture]) -> Detections | list[Detections]:
        """Detect in (H, W, 3) uint8, BGR, or in an image file; in each of a list of them.

        Any number of threads may call it. Images of a list run one by one: a graph takes one image,
        of any size, and keeps all the engine's threads busy with it.

        Raises:
            InputError: the file cannot be read, the image is too narrow for the model, or the
                model fails.
        """
        if isinstance(image, list):
            return [self._detect(one) for one in image]
        return self._detect(image)

    def _detect(self, image: Picture) -> Detections:
        if isinstance(image, (str, os.PathLike)):
            image = read_image(os.fspath(image))
        pixels = preprocess(image, self.info)
        return read_answer(self._run(pixels), self.info, pixels.shape[:2], image.shape[:2])

    def _run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the graph by name, if they are what the file says that it gives.

        Raises:
            InputError: the engine fails, or gives anything else.
        """
        names = self.info.outputs
        try:
            found = dict(zip(names, self._graph(pixels), strict=True))
        except Exception as error:  # each engine has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path}: the engine cannot run it: {reason}") from error
        if not is_answer(found, self.info):
            listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
            raise InputError(f"{self.path}: it gives no {listed} of its names")
        return found

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
