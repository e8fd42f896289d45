"""COCO json files: detectron2's loader, with its failures said in one line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ..errors import InputError


def load_coco(
    json_file: str, image_root: str, name: str, classes: Sequence[str] = ()
) -> list[dict]:
    """`load_coco_json`: category ids made contiguous, class names put in the metadata of `name`.

    Categories of one name are one class: exports of Roboflow have each class twice where the
    project is called like it. The ids of annotations do not matter. An `area` stays with its
    annotation.

    Args:
        classes: what the metadata already says, if it does.

    Raises:
        InputError: the file or the image folder is missing, the file is not COCO instances, or
            its categories are not `classes`.
    """
    if not os.path.isfile(json_file):
        raise InputError(f"{json_file}: no such annotation file")
    if not os.path.isdir(image_root):
        raise InputError(f"{image_root}: no such image folder, for the images of {json_file}")
    try:
        dicts = _load(json_file, image_root, name)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        found = read_classes(json_file)  # says the usual faults more plainly
        if classes and found != list(classes):
            raise InputError(
                f"{json_file}: its categories by id are {', '.join(found)}, but "
                f"DATASETS.REGISTER.{name}.classes is {', '.join(classes)}"
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{json_file}: not usable as COCO instances: {reason}") from error
    if not dicts:
        read_coco(json_file)
    return dicts


def _load(json_file: str, image_root: str, name: str) -> list[dict]:
    """By detectron2's loader, which wants ids of annotations, from a copy with ids of our own."""
    content = read_coco(json_file)
    for number, annotation in enumerate(content.get("annotations") or (), start=1):
        annotation["id"] = number
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(json_file))
        with open(copy, "w", encoding="utf-8") as file:
            json.dump(content, file)
        dicts = load_coco_json(copy, image_root, extra_annotation_keys=["area"])
    classes = read_classes(json_file)
    places = {row["id"]: classes.index(str(row["name"])) for row in content["categories"]}
    for image in dicts:
        for annotation in image["annotations"]:
            annotation["category_id"] = places[annotation["category_id"]]
    metadata = MetadataCatalog.get(name)
    metadata.set(thing_classes=classes, thing_dataset_id_to_contiguous_id=places)
    return dicts


def read_coco(json_file: str) -> dict:
    """The content of a COCO json that has images and categories.

    Raises:
        InputError: it has not, or is not json.
    """
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise InputError(f"{json_file}: no such annotation file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{json_file}: cannot be read as json: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{json_file}: not a COCO file: expected an object at the top level")
    for key, fields in (("images", ("id", "file_name", "height", "width")),
                        ("categories", ("id", "name"))):  # fmt: skip
        rows = content.get(key)
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{json_file}: not a COCO instances file: no {key!r} in it")
        for row in rows:
            missing = [f for f in fields if not isinstance(row, dict) or f not in row]
            if missing:
                raise InputError(f"{json_file}: an entry of {key!r} has no {missing[0]!r}: {row}")
    return content


def read_classes(json_file: str) -> list[str]:
    """Names of the categories, each once, in the order of their ids: detectron2's order."""
    categories = read_coco(json_file)["categories"]
    names = [str(c["name"]) for c in sorted(categories, key=lambda c: c["id"])]
    return list(dict.fromkeys(names))
