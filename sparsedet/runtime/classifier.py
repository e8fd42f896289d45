"""Running an exported classifier: neither torch nor detectron2 is needed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from ..errors import InputError
from ..images import CHANNELS, read_image
from .engines import load_graph

TASK = "classification"  # in the metadata of an exported file
LARGEST = 2**14  # pixels of a side


class OtherTask(InputError):
    """An exported file is good, but of another task."""


def is_classifier(metadata: str) -> bool:
    """Whether the metadata of an exported file are those of a classifier."""
    try:
        return json.loads(metadata).get("task") == TASK
    except (AttributeError, RecursionError, ValueError):
        return False


@dataclass(frozen=True)
class ClassifierInfo:
    """How to use an exported classifier.

    Attributes:
        class_names: by class index.
        format: order of the channels that the graph reads, "BGR" or "RGB".
        shorter_side: pixels to which the shorter side of an image is resized,
        size: and those of the square in its middle that the graph reads.
        precision: of the weights, "f32", "f16" or "int8".
        version: of sparsedet, when it wrote the file.
    """

    class_names: list[str]
    format: str
    shorter_side: int
    size: int
    precision: str
    version: str
    task: str = TASK

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClassifierInfo:
        """Raises ValueError or TypeError where ``text`` is not what :meth:`to_json` wrote."""
        info = cls(**json.loads(text))
        texts = (*info.class_names, info.format, info.precision, info.version)
        sizes = (info.shorter_side, info.size)
        if type(info.class_names) is not list or not all(type(value) is str for value in texts):
            raise ValueError("class_names, format, precision and version must be text")
        if not all(type(size) is int and 0 < size <= LARGEST for size in sizes):
            raise ValueError(f"shorter_side and size must be 1 to {LARGEST}")
        if info.format not in CHANNELS or info.task != TASK:
            raise ValueError(f"format must be BGR or RGB, and task {TASK}")
        return info


@dataclass(frozen=True)
class Classes:
    """What one image shows, the most probable first.

    Attributes:
        probabilities: (K,) float32, of all classes.
        classes: (K,) int64.
        names: of the classes.
    """

    probabilities: np.ndarray
    classes: np.ndarray
    names: list[str]


class Classifier:
    """An exported classifier.

    Args:
        path, engine, threads, precision: as of :class:`sparsedet.Detector`.

    Raises:
        InputError: the engine is not installed or lacks the precision; the file is missing,
            truncated, or not a classifier.
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
        try:
            self.info = ClassifierInfo.from_json(metadata)
        except (RecursionError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: not a classifier that sparsedet export wrote; sparsedet.Detector runs "
                "detectors"
            ) from error

    def __call__(self, image: np.ndarray | str | os.PathLike) -> Classes:
        """Classify (H, W, 3) uint8, BGR, or an image file.

        Raises:
            InputError: the file cannot be read, or the model fails.
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_image(os.fspath(image))
        probabilities = self._run(classifier_input(image, self.info))
        best = np.argsort(-probabilities, kind="stable")
        return Classes(probabilities[best], best, [self.info.class_names[i] for i in best])

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        try:
            (probabilities,) = self._graph(pixels)
        except Exception as error:  # each engine has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path}: the engine cannot run it: {reason}") from error
        if (
            np.shape(probabilities) != (len(self.info.class_names),)
            or probabilities.dtype.kind != "f"
            or not np.isfinite(probabilities).all()
        ):
            raise InputError(f"{self.path}: it gives no probabilities of its classes")
        return probabilities


def resize_shorter(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 with the shorter side of that many pixels, as torchvision's ``Resize``.

    Raises:
        InputError: the longer side would have more than ``LARGEST``.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    # Operation by operation as torchvision does it, for the same rounding.
    size = tuple(side if n == shorter else int(side * n / shorter) for n in (width, height))
    if max(size) > LARGEST:
        raise InputError(f"{width} x {height} pixels are too narrow for the model")
    if size == (width, height):
        return pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def classifier_input(image: np.ndarray, info: ClassifierInfo) -> np.ndarray:
    """(H, W, 3) uint8, BGR, to the square (S, S, 3) that the graph reads."""
    pixels = image if info.format == "BGR" else image[:, :, ::-1]
    return np.ascontiguousarray(middle(resize_shorter(pixels, info.shorter_side), info.size))


def middle(pixels: np.ndarray, size: int) -> np.ndarray:
    """The square of ``size`` in the middle, as torchvision's ``CenterCrop``.

    A smaller image is enlarged before.
    """
    if min(pixels.shape[:2]) < size:
        pixels = resize_shorter(pixels, size)
    top, left = (round((side - size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]
