"""What compression has to know of a classifier: its images, and which layer answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from torch import nn

from ..compress import Task
from ..compress.candidates import dense_layers
from ..data.class_order import dataset_classes
from ..detection.images import check_content, read_usable
from ..detection.pixel_file import PixelFile, StoredInput
from ..detection.task import DetectionTask
from ..errors import InputError
from ..images import find_images
from .mapper import ClassificationMapper
from .records import labelled_records

BATCH = 4
"""Images in one batch of calibration."""


class ClassificationTask(DetectionTask):
    """An :class:`ImageClassifier`; the layer that gives the logits stays dense.

    Args:
        batches: lists of ``{"image": (3, S, S), of 0 to 255}``.
        cfg: of the dense model; needed to save what becomes of it.
    """

    @classmethod
    def from_images(
        cls,
        cfg: CfgNode,
        folder: str | None = None,
        count: int = 100,
        progress: bool = False,
        smallest_side: int = 1,
        min_size: int | None = None,
    ) -> ClassificationTask:
        """On ``count`` random images of a folder or pattern, or of DATASETS.TRAIN.

        Raises:
            InputError: there are none, or more than half of them cannot be used; a ``min_size``.
        """
        if min_size is not None:
            raise InputError("min_size: a classifier sees images of MODEL.CLASSIFIER.SIZE alone")
        if count < 1:
            raise InputError(f"calibration: {count} images; it needs 1 at least")
        records = _records(cfg, folder)
        chosen = random.Random(0).sample(records, min(count, len(records)))
        mapper = ClassificationMapper(cfg, False)

        pixel_file = PixelFile()

        def read(record: dict[str, Any]) -> StoredInput:
            image = mapper(record)["image"]
            check_content(str(record.get("file_name")), image.permute(1, 2, 0).numpy())
            return pixel_file.keep(image)

        images = read_usable(chosen, read, progress)
        return cls([images[i : i + BATCH] for i in range(0, len(images), BATCH)], cfg)

    @property
    def deployed(self) -> Task:
        """Itself: MODEL.CLASSIFIER.SIZE is the size of all images."""
        return self

    def pictures(self, models: Mapping[str, nn.Module]) -> list[np.ndarray]:
        """None: there are no boxes to draw."""
        return []

    def fixed(self, model: nn.Module) -> list[nn.Module]:
        """Nothing: no layer chooses where others look."""
        return []

    def answers(self, model: nn.Module) -> list[str]:
        """The name of the layer that gives the logits, if that can be fitted."""
        last = model.last_layer()
        return [last] if last in dense_layers(model) else []


def _records(cfg: CfgNode, folder: str | None) -> list[dict[str, Any]]:
    if folder is not None:
        files, problems = find_images([folder])
        if not files:
            raise InputError(f"calibration images: {problems[0]}")
        return [{"file_name": file} for file in files]
    records = list(_of_training(cfg))
    if not records:
        raise InputError("DATASETS.TRAIN: no images there to calibrate on; name a folder")
    return records


def _of_training(cfg: CfgNode) -> Iterator[dict[str, Any]]:
    for dataset in cfg.DATASETS.TRAIN:
        yield from labelled_records(dataset, dataset_classes(dataset))
