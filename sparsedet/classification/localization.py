"""Localization as ILSVRC scores it: a class and a box for it, without ever learning from boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from ..errors import InputError
from ..images import read_image
from ..modeling import ImageClassifier
from ..runtime.classifier import resize_shorter
from .cam import ActivationMaps, box_of, heat

BEST = 5  # guesses that count
OVERLAP = 0.5  # intersection over union, at least, of a box that counts


@dataclass(frozen=True)
class Located:
    """What one image shows, and where.

    Attributes:
        classes: the most probable ones, five or all of fewer, the best first.
        boxes: (len(classes), 4), XYXY_ABS in the image, one for each of them.
        known_box: (4,), of the true class.
        heat: (H, W), 0 to 1, the map of the best class.
        overlaps: of each box, and of the known one at the end, with the nearest true box.
        label: the true class.
    """

    classes: Sequence[int]
    boxes: np.ndarray
    known_box: np.ndarray
    heat: np.ndarray
    overlaps: np.ndarray
    label: int


def localize(model: ImageClassifier, records: Iterable[dict]) -> Iterator[Located]:
    """Where the class activation maps of a model see the classes of images.

    The network sees the whole image, its shorter side as long as in training the square is: what
    is outside the middle can be found, too.

    Args:
        model: of :func:`sparsedet.load_model`, in eval mode.
        records: as :func:`labelled_records` gives them.

    Raises:
        InputError: a record has no boxes, its image cannot be used, or the model has no such maps.
    """
    maps = ActivationMaps(model)
    for record in records:
        yield locate(maps, record)


def locate(maps: ActivationMaps, record: Mapping[str, Any]) -> Located:
    """One of :func:`localize`."""
    name = record.get("file_name", "an image of a data set of classes")
    if not record.get("boxes"):
        raise InputError(
            f"{name}: has no boxes, which localization needs: name a data set of format voc, coco "
            "or yolo in DATASETS.TEST"
        )
    model = maps.model
    pixels = read_image(record["file_name"], model.input_format)
    height, width = pixels.shape[:2]
    if (width, height) != (record["width"], record["height"]):
        size = f"{record['width']} x {record['height']}"
        raise InputError(f"{name}: is {width} x {height} pixels, but its boxes are of {size}")
    resized = resize_shorter(pixels, model.cfg.MODEL.CLASSIFIER.SIZE)
    image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    probabilities, activations = maps(image)
    classes = np.argsort(-probabilities, kind="stable")[:BEST].tolist()
    hot = [heat(activations[c], height, width) for c in (*classes, record["label"])]
    boxes = np.stack([box_of(part) for part in hot])
    truth = torch.tensor(record["boxes"], dtype=torch.float32)
    overlaps = box_iou(torch.from_numpy(boxes), truth).amax(1).numpy()
    return Located(classes, boxes[:-1], boxes[-1], hot[0], overlaps, record["label"])


def errors(located: Sequence[Located]) -> dict[str, float]:
    """In percent of the images.

    Returns:
        "class top1" and "class top5": none of the first (five) classes is the true one;
        "top1" and "top5": none of them is, with a box that overlaps a true one by half;
        "known": the box of the true class, if it is told, overlaps none by half.
    """
    classes, found = [], []
    for image in located:
        right = np.array(image.classes) == image.label
        classes.append(right)
        found.append(right & (image.overlaps[:-1] >= OVERLAP))
    wrong = {
        "class top1": [not right[0] for right in classes],
        "class top5": [not right.any() for right in classes],
        "top1": [not right[0] for right in found],
        "top5": [not right.any() for right in found],
        "known": [image.overlaps[-1] < OVERLAP for image in located],
    }
    return {name: 100 * float(np.mean(values)) for name, values in wrong.items()}
