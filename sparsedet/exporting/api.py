"""The verb ``export``: one file that runs without torch, compared with the model first."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import nn

from ..detection.classes import detected_class_names
from ..detection.labels import model_labels
from ..detection.predictor import Predictor
from ..errors import InputError
from ..images import find_images, read_image
from ..modeling import ImageClassifier
from ..runtime.detector import Detector
from ..weights import check_finite
from .classifier import ClassDifference, export_classifier
from .compare import Difference, beyond_limits
from .evaluate import compare_with_pytorch
from .exporter import PRECISIONS, export_graph, replacing_files
from .graph import on_cpu


def export(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    precision: str = "f32",
    images: str | os.PathLike | None = None,
) -> Difference | ClassDifference:
    """Write a model to ONNX, or to OpenVINO IR where ``path`` ends in .xml (and a .bin beside).

    The file holds everything between the resized image and what the task gives (boxes, masks,
    keypoints, segments, semantic maps, proposals, classes), for any image size, and says how to use
    it: :class:`sparsedet.Detector` runs it, :class:`sparsedet.Classifier` that of a classifier.
    Before it is put in place it is run on one picture beside the model.

    Args:
        model: of :func:`load_model`, compressed since or not.
        precision: "f32"; "f16" stores the weights in half precision; "int8" computes trunk and
            heads in eight bits.
        images: a folder or pattern of files like those to come, on which int8 is calibrated, and of
            which the first is the picture. Otherwise it is a generated one, in which few models
            find anything.

    Returns:
        how far the file's detections in that picture are from the model's, or its probabilities.

    Raises:
        InputError: a model or operator that cannot be exported, weights that are not finite, a
            library that is missing, no image for int8; or, in f32, a file that differs from the
            model by more than 0.5 pixels, 0.001 of score, 1% of the pixels of masks and maps, or
            10% of the keypoints. Nothing is written then.
    """
    path = os.fspath(path)
    if not path.endswith((".onnx", ".xml")):
        raise InputError(f"{path}: the name of an exported file must end in .onnx or .xml")
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}; one of {', '.join(PRECISIONS)}")
    files, problems = find_images([os.fspath(images)]) if images else ([], [])
    if problems:
        raise InputError(f"images: {problems[0]}")
    if precision == "int8" and not files:
        raise InputError("int8 needs images to calibrate on: --images DIR, or images=")
    picture = read_image(files[0]) if files else generated_picture()
    model = on_cpu(model)
    if isinstance(model, ImageClassifier):
        return export_classifier(model, path, precision, files, picture)
    predictor = Predictor.of(model)
    cfg = predictor.cfg
    names = detected_class_names(cfg, model)
    check_finite(f"{path}: not written", model.state_dict())
    with replacing_files(path) as temporary:
        export_graph(
            model,
            temporary,
            class_names=names,
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            precision=precision,
            images=files,
            input_format=cfg.INPUT.FORMAT,
            labels=model_labels(cfg, model, names),
        )
        apart = compare_on(picture, temporary, predictor, names)
        if precision == "f32" and (what := beyond_limits(apart)):
            raise InputError(
                f"{path}: the file differs from the model in {what}; nothing was written"
            )
    return apart


def compare_on(
    picture: np.ndarray, file: str, predictor: Predictor, names: Sequence[str]
) -> Difference:
    """How far an exported file is from the PyTorch model, on one picture."""
    engine = "openvino" if file.endswith(".xml") else "onnxruntime"
    expected, found = predictor.detect(picture, names), Detector(file, engine)(picture)
    return compare_with_pytorch(predictor.cfg, expected, found)


def generated_picture() -> np.ndarray:
    """Smooth random colours, (480, 640, 3) uint8."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((640, 480), Image.Resampling.BICUBIC))
