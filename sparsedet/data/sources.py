"""The kinds of data sets that a config describes: each is a loader for detectron2's catalog."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from .class_folders import read_folders
from .coco import read_coco, tell_classes
from .records import DROP, Annotations
from .shares import Share
from .torchvision_data import read_labels
from .voc import read_voc
from .yolo import read_yolo


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Loads one split when called; `classes` is empty where its files are not there to tell."""

    name: str
    split: str | Share | None = None
    classes: tuple[str, ...] = ()
    on_error: str = DROP

    def __call__(self) -> list[dict]:
        """Dataset dicts; InputError as :meth:`Annotations.dicts`."""
        return self.read().dicts(self.on_error)

    @abstractmethod
    def read(self) -> Annotations:
        """What its files say; InputError where they are not there."""

    def metadata(self) -> dict[str, Any]:
        """What detectron2's catalog tells of it."""
        return {"thing_classes": list(self.classes)} if self.classes else {}

    def places(self) -> Source:
        """The same without what chooses from its files."""
        return replace(self, name="", split=None, classes=(), on_error=DROP)

    def overlaps(self, other: Source) -> bool:
        """Whether both are shares of the same images, which have some in common."""
        mine, others = self.split, other.split
        if not isinstance(mine, Share) or not isinstance(others, Share):
            return False
        same = self.places() == other.places()
        return same and mine.name != others.name and mine.size + others.size > 1 + 1e-6


@dataclass(frozen=True, kw_only=True)
class VocSource(Source):
    root: str

    def read(self) -> Annotations:
        return read_voc(self.root, self.split, self.classes or None)

    def metadata(self) -> dict[str, Any]:
        # As detectron2's own VOC datasets; the year tells its evaluator to use the area metric.
        return {
            **super().metadata(),
            "dirname": self.root,
            "split": str(self.split or ""),
            "year": 2012,
            "evaluator_type": "pascal_voc",
        }


@dataclass(frozen=True, kw_only=True)
class CocoSource(Source):
    json: str
    images: str
    # Of stuff: pictures of labels, with the names of these; COCO's panoptic annotations.
    sem_seg_root: str = ""
    stuff_classes: tuple[str, ...] = ()
    panoptic_json: str = ""
    panoptic_root: str = ""

    def __call__(self) -> list[dict]:
        found = self.read()
        tell_classes(found, self.name, self.classes)
        dicts = found.dicts(self.on_error)
        return [self._with_labels(image) for image in dicts] if self.sem_seg_root else dicts

    def _with_labels(self, image: dict) -> dict:
        name = os.path.splitext(os.path.relpath(image["file_name"], self.images))[0]
        path = os.path.join(self.sem_seg_root, f"{name}.png")
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such file, for the labels of {image['file_name']}")
        return {**image, "sem_seg_file_name": path}

    def read(self) -> Annotations:
        share = self.split if isinstance(self.split, Share) else None
        return read_coco(self.json, self.images, share)

    def metadata(self) -> dict[str, Any]:
        # No json_file: an evaluator compares with what was loaded, and not with what was left out.
        known = {**super().metadata(), "image_root": self.images, "evaluator_type": "coco"}
        if self.stuff_classes:
            known.update(stuff_classes=list(self.stuff_classes), ignore_label=255)
        if self.panoptic_json:
            known.update(panoptic_json=self.panoptic_json, panoptic_root=self.panoptic_root)
        return known


@dataclass(frozen=True, kw_only=True)
class YoloSource(Source):
    root: str

    def read(self) -> Annotations:
        return read_yolo(self.root, self.split)

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "evaluator_type": "coco"}


@dataclass(frozen=True, kw_only=True)
class _ClassSource(Source):
    """Images that have one class each, and no boxes; records have a "label" instead."""

    root: str

    def read(self) -> Annotations:
        raise InputError(f"{self.root}: a data set of classes, which has no boxes to read")

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "dirname": self.root, "evaluator_type": "classification"}


@dataclass(frozen=True, kw_only=True)
class FolderSource(_ClassSource):
    def __call__(self) -> list[dict]:
        return read_folders(self.root, self.split, self.classes)


@dataclass(frozen=True, kw_only=True)
class TorchvisionSource(_ClassSource):
    dataset: str

    def __call__(self) -> list[dict]:
        return read_labels(self.dataset, self.root, str(self.split))
