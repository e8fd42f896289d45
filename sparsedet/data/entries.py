"""What an entry of DATASETS.REGISTER may say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError
from .class_folders import read_classes as folder_classes
from .class_lists import check_names
from .coco_json import read_classes as coco_classes
from .records import DROP, ON_ERROR
from .shares import SHARES, Share
from .sources import CocoSource, FolderSource, Source, TorchvisionSource, VocSource, YoloSource
from .torchvision_data import read_classes as torchvision_classes
from .voc import read_classes as voc_classes
from .yolo_files import read_data_yaml

# A field of stuff, and another that it needs.
PAIRS = (
    ("sem_seg_root", "stuff_classes"),
    ("stuff_classes", "sem_seg_root"),
    ("panoptic_json", "panoptic_root"),
    ("panoptic_root", "panoptic_json"),
    ("panoptic_json", "stuff_classes"),
)
# format -> the fields it needs, and those it may have besides `format` and on_error
FIELDS = {
    "voc": (("root",), ("split", "classes")),
    "coco": (
        ("json", "images"),
        ("split", "classes", "sem_seg_root", "stuff_classes", "panoptic_json", "panoptic_root"),
    ),
    "yolo": (("root", "split"), ("classes",)),
    "folder": (("root",), ("split", "classes")),
    "torchvision": (("root", "dataset", "split"), ("classes",)),
}
SOURCES = {
    "voc": VocSource,
    "coco": CocoSource,
    "yolo": YoloSource,
    "folder": FolderSource,
    "torchvision": TorchvisionSource,
}
NAMES = ("dataset", "split")  # required fields that are no places


def read_classes(kind: str, place: str, more: str = "") -> tuple[str, ...]:
    """The classes of files that are there; () where they are not, as a config may be loaded.

    Args:
        more: the folder of COCO's images, or the name of torchvision's data set.
    """
    if not os.path.exists(place):
        return ()
    if kind == "yolo":
        return read_data_yaml(place).classes
    if kind == "torchvision":
        return tuple(torchvision_classes(more, place))
    read = {"voc": voc_classes, "coco": coco_classes, "folder": folder_classes}[kind]
    return tuple(dict.fromkeys(read(place)))


def parse_entry(
    name: str, entry: Any, key: str = "", read: Callable[..., tuple[str, ...]] = read_classes
) -> Source:
    """The data set that an entry describes; its classes are read from its files if not given.

    Args:
        read: by what; :func:`read_classes`, or what remembers that for several entries.
        key: what the messages put before a field; by default, the entry's key in a config.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, or files that are there name
            no classes.
    """
    if not isinstance(entry, Mapping):
        raise InputError(
            f"DATASETS.REGISTER.{name}: expected fields such as format and root, got {entry!r}"
        )
    key = key or f"DATASETS.REGISTER.{name}."
    kind = entry.get("format")
    if kind not in FIELDS:
        raise InputError(f"{key}format: expected {', '.join(FIELDS)}, got {kind!r}")
    _check_fields(key, entry, *FIELDS[kind])
    common = {
        "name": name,
        "split": _split(key, entry),
        "classes": check_names(f"{key}classes", entry["classes"]) if "classes" in entry else (),
        "on_error": entry.get("on_error", DROP),
    }
    if common["on_error"] not in ON_ERROR:
        expected = " or ".join(ON_ERROR)
        raise InputError(f"{key}on_error: expected {expected}, got {common['on_error']!r}")
    places = {field: locate(_text(key, entry, field)) for field in places_of(kind)}
    if kind == "torchvision":
        places["dataset"] = _text(key, entry, "dataset")
    if not common["classes"]:
        common["classes"] = read(kind, *places.values())
    more = _stuff(key, entry) if kind == "coco" else {}
    return SOURCES[kind](**common, **places, **more)


def places_of(kind: str) -> list[str]:
    """The fields of a format that are its files and folders."""
    return [field for field in FIELDS[kind][0] if field not in NAMES]


def _stuff(key: str, entry: Mapping) -> dict[str, Any]:
    """What a COCO entry says of stuff: the fields of PAIRS."""
    for field, other in PAIRS:
        if field in entry and other not in entry:
            raise InputError(f"{key}{other}: missing; {field} needs it")
    fields = {
        field: locate(_text(key, entry, field))
        for field in ("sem_seg_root", "panoptic_json", "panoptic_root")
        if field in entry
    }
    if "stuff_classes" in entry:
        fields["stuff_classes"] = check_names(f"{key}stuff_classes", entry["stuff_classes"])
    return fields


def _check_fields(key: str, entry: Mapping, required: tuple, optional: tuple) -> None:
    known = {"format", "on_error", *required, *optional}
    for field in entry:
        if field not in known:
            raise InputError(
                f"{key}{field}: no such field; known fields: {', '.join(sorted(known))}"
            )
    for field in required:
        if field not in entry:
            raise InputError(f"{key}{field}: missing; format {entry['format']} needs it")


def _split(key: str, entry: Mapping) -> str | Share | None:
    """A name, or a share: {train: 0.8}, {test: 0.2}, or 0.8 for the first of these."""
    split = entry.get("split")
    if "split" not in entry:
        return None
    if entry["format"] != "coco" and isinstance(split, str) and split:
        return split
    if isinstance(split, float):
        split = {"train": split}
    if isinstance(split, Mapping) and len(split) == 1:
        ((share, size),) = split.items()
        if share in SHARES and isinstance(size, float) and 0 < size < 1:
            return Share(share, size)
    names = "" if entry["format"] == "coco" else "a name, "
    raise InputError(
        f"{key}split: expected {names}{{train: 0.8}} or {{test: 0.2}}, got {_plain(split)!r}"
    )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _text(key: str, entry: Mapping, field: str) -> str:
    value = entry[field]
    if not isinstance(value, str) or not value:
        raise InputError(f"{key}{field}: expected a text, got {value!r}; put quotes around it")
    return value


def locate(path: str) -> str:
    """Where a dataset's relative path points: below $DETECTRON2_DATASETS, or ./datasets."""
    root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    return os.path.join(root, os.path.expanduser(path))
