"""Datasets named in the config, registered in detectron2's catalogs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .coco import load_coco, read_classes
from .voc import load_voc


@dataclass(frozen=True)
class VocDataset:
    """Loads one split of a VOC-style folder when called."""

    root: str
    split: str
    classes: tuple[str, ...]

    def __call__(self) -> list[dict]:
        return load_voc(self.root, self.split, self.classes)

    def metadata(self) -> dict[str, Any]:
        # As detectron2's own VOC datasets; the year tells its evaluator to use the area metric.
        return {
            "thing_classes": list(self.classes),
            "dirname": self.root,
            "split": self.split,
            "year": 2012,
            "evaluator_type": "pascal_voc",
        }


@dataclass(frozen=True)
class CocoDataset:
    """Loads a COCO json when called. `classes` is empty where the file is not there to tell."""

    name: str
    json: str
    images: str
    classes: tuple[str, ...]

    def __call__(self) -> list[dict]:
        return load_coco(self.json, self.images, self.name, self.classes)

    def metadata(self) -> dict[str, Any]:
        metadata = {"json_file": self.json, "image_root": self.images, "evaluator_type": "coco"}
        return {"thing_classes": list(self.classes), **metadata} if self.classes else metadata


def register_datasets(cfg: CfgNode) -> None:
    """Register `cfg.DATASETS.REGISTER`, then check the names in DATASETS.TRAIN and .TEST.

    Nothing but the classes of a COCO json is read before the dataset is used, and they are
    written into `cfg` (if it is not frozen): a config saved beside a checkpoint then names the
    classes on a machine without the dataset. Registering the same again changes nothing.

    Raises:
        InputError: a field is missing, unknown or of the wrong type; a name belongs to a dataset
            that was not registered here; a name in TRAIN or TEST is not registered.
    """
    for name, entry in cfg.DATASETS.REGISTER.items():
        dataset = _parse(name, entry)
        if isinstance(dataset, CocoDataset) and dataset.classes and not cfg.is_frozen():
            entry["classes"] = list(dataset.classes)
        _register(name, dataset)
    known = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else "name it there"
                raise InputError(
                    f"DATASETS.{key}: {name!r} is not registered, neither by detectron2 nor in "
                    f"DATASETS.REGISTER; {hint}"
                )


def _register(name: str, dataset: VocDataset | CocoDataset) -> None:
    if name in DatasetCatalog:
        known = DatasetCatalog[name]
        if known == dataset:
            return
        if not isinstance(known, (VocDataset, CocoDataset)):
            raise InputError(
                f"DATASETS.REGISTER.{name}: there is a dataset of this name already, which was "
                f"not registered from a config; choose another name"
            )
        DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)  # metadata refuses to change
    DatasetCatalog.register(name, dataset)
    MetadataCatalog.get(name).set(**dataset.metadata())


def _parse(name: str, entry: Any) -> VocDataset | CocoDataset:
    key = f"DATASETS.REGISTER.{name}"
    if not isinstance(entry, Mapping):
        raise InputError(f"{key}: expected fields such as format and root, got {entry!r}")
    kind = entry.get("format")
    if kind == "voc":
        _check_fields(key, entry, {"format", "root", "split", "classes"})
        root, split = _text(key, entry, "root"), _text(key, entry, "split")
        return VocDataset(locate(root), split, _names(key, entry))
    if kind == "coco":
        _check_fields(key, entry, {"format", "json", "images"}, optional={"classes"})
        json_file, images = (locate(_text(key, entry, field)) for field in ("json", "images"))
        if "classes" in entry:
            classes = _names(key, entry)
        else:
            classes = tuple(read_classes(json_file)) if os.path.exists(json_file) else ()
        return CocoDataset(name, json_file, images, classes)
    raise InputError(f"{key}.format: expected voc or coco, got {kind!r}")


def _check_fields(key: str, entry: Mapping, required: set, optional: set = frozenset()) -> None:
    for field in entry:
        if field not in required | optional:
            known = ", ".join(sorted(required | optional))
            raise InputError(f"{key}.{field}: no such field; known fields: {known}")
    for field in sorted(required):
        if field not in entry:
            raise InputError(f"{key}.{field}: missing; format {entry['format']} needs it")


def _text(key: str, entry: Mapping, field: str) -> str:
    value = entry[field]
    if not isinstance(value, str) or not value:
        raise InputError(f"{key}.{field}: expected a text, got {value!r}; put quotes around it")
    return value


def _names(key: str, entry: Mapping) -> tuple[str, ...]:
    names = entry["classes"]
    if not isinstance(names, (list, tuple)) or not names:
        raise InputError(f"{key}.classes: expected a list of class names, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"{key}.classes: {name!r} is not a text; put quotes around it")
        if names.count(name) > 1:
            raise InputError(f"{key}.classes: {name!r} is there more than once")
    return tuple(names)


def locate(path: str) -> str:
    """Where a dataset's relative path points: below $DETECTRON2_DATASETS, or ./datasets."""
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    return os.path.join(root, os.path.expanduser(path))
