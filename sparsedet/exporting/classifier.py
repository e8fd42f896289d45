"""From a classifier to one ONNX file, or OpenVINO IR, that says how to use it."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from .. import __version__
from ..checkpoint import model_class_names
from ..errors import InputError
from ..hooks import plain_attention
from ..modeling import ImageClassifier
from ..runtime.classifier import Classifier, ClassifierInfo, classifier_input
from ..weights import check_finite
from .exporter import replacing_files, require_libraries, save_graph, trace
from .graph import on_cpu

PROBABILITY = 0.001  # the difference that f32 may have


@dataclass(frozen=True)
class ClassDifference:
    """How far an exported classifier is from the model, on one picture.

    Attributes:
        probability: the largest difference of one.
        same: whether the most probable class is the same.
    """

    probability: float
    same: bool

    def __str__(self) -> str:
        first = "the same class first" if self.same else "another class first"
        return f"{first}, probabilities within {self.probability:.6f}"


class ClassificationGraph(nn.Module):
    """Input: image (S, S, 3) uint8. Output: probabilities (K,) float32. It is :func:`on_cpu`."""

    def __init__(self, model: ImageClassifier):
        super().__init__()
        self.model = on_cpu(model)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        images = self.model.normalize(image.permute(2, 0, 1)[None])
        return self.model.network(images).softmax(1)[0]


def export_classifier(
    model: ImageClassifier, path: str, precision: str, images: Sequence[str], picture: np.ndarray
) -> ClassDifference:
    """As :func:`sparsedet.export`, of a classifier.

    Args:
        images: files, on which int8 is calibrated, and of which the first is compared on.
        picture: (H, W, 3) uint8, BGR, which is compared on otherwise.

    Raises:
        InputError: an operator that cannot be exported, a library that is missing, weights that are
            not finite, or names of the classes that are not known; or, in f32, a file that differs
            from the model by more than 0.001. Nothing is written then.
    """
    require_libraries(path, precision)
    check_finite(f"{path}: not written", model.state_dict())
    names = model_class_names(model)
    if not names:
        raise InputError(f"{path}: the checkpoint does not say the names of its classes")
    info = classifier_info(model, names, precision)
    # Calibration for eight bits changes the weights.
    graph = ClassificationGraph(copy.deepcopy(model) if precision == "int8" else model)
    with replacing_files(path) as temporary, tempfile.TemporaryDirectory() as folder:
        traced = os.path.join(folder, "model.onnx")
        if precision == "int8":
            from .quantize import calibrate_, classifier_nodes, quantize

            inputs = calibrate_(graph, images, partial(classifier_input, info=info))
        _trace(graph, traced, info.size)
        if precision == "int8":
            traced = quantize(traced, inputs, classifier_nodes)
        save_graph(traced, temporary, info)
        apart = _compare(graph, temporary, info, picture)
        if precision == "f32" and apart.probability > PROBABILITY:
            raise InputError(f"{path}: the file differs from the model: nothing was written")
    return apart


def classifier_info(model: ImageClassifier, names: Sequence[str], precision: str) -> ClassifierInfo:
    """The metadata of a model of :func:`sparsedet.load_model`."""
    cfg = model.cfg
    return ClassifierInfo(
        class_names=list(names),
        format=model.input_format,
        shorter_side=cfg.INPUT.MIN_SIZE_TEST,
        size=cfg.MODEL.CLASSIFIER.SIZE,
        precision=precision,
        version=__version__,
    )


def _trace(graph: ClassificationGraph, path: str, size: int) -> None:
    example = torch.zeros(size, size, 3, dtype=torch.uint8)
    with plain_attention():
        trace(graph, example, path, ["probabilities"])


def _compare(
    graph: ClassificationGraph, file: str, info: ClassifierInfo, picture: np.ndarray
) -> ClassDifference:
    engine = "openvino" if file.endswith(".xml") else "onnxruntime"
    found = Classifier(file, engine)(picture)
    pixels = classifier_input(picture, info)
    with torch.no_grad():
        expected = graph(torch.from_numpy(pixels)).numpy()
    apart = np.abs(found.probabilities - expected[found.classes]).max()
    return ClassDifference(float(apart), bool(found.classes[0] == expected.argmax()))
