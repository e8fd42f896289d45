"""Where the files of a YOLO dataset are: what its data.yaml says, and images with their labels.

The yaml has `names` (a list, or a mapping from 0 on), and under `train`, `val` and `test` a
folder of images, a text file that lists some, or several of these; all below `path`, or below
the yaml. ``.../images/x.jpg`` has its label at ``.../labels/x.txt``, or beside it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ..errors import InputError
from ..yaml_files import read_yaml
from .class_lists import check_names
from .shares import Share
from .voc_images import is_image

SPLITS = ("train", "val", "test")


class YoloYaml(NamedTuple):
    """A data.yaml."""

    path: str
    folders: list[str]  # to which its paths are relative, the first that has them
    splits: dict[str, list[str]]  # as written
    classes: tuple[str, ...]
    has_keypoints: bool


def read_data_yaml(root: str) -> YoloYaml:
    """The yaml of a dataset, given by its own name or by its folder.

    Raises:
        InputError: there is none, or it is not one of YOLO's.
    """
    path = root if root.endswith((".yaml", ".yml")) else os.path.join(root, "data.yaml")
    data = read_yaml(path)
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{path}: names: the numbers must be 0, 1, 2 and so on")
        names = [names[i] for i in range(len(names))]
    classes = check_names(f"{path}: names", names)
    if data.get("nc", len(classes)) != len(classes):
        raise InputError(f"{path}: nc is {data['nc']}, but there are {len(classes)} names")
    splits = {key: _texts(path, key, data[key]) for key in SPLITS if data.get(key)}
    if not splits:
        raise InputError(f"{path}: has none of {', '.join(SPLITS)}")
    own = os.path.dirname(path)
    base = data.get("path") or ""
    folders = [os.path.join(own, *_texts(path, "path", base)), own] if base else [own]
    return YoloYaml(path, folders, splits, classes, "kpt_shape" in data)


def _texts(path: str, key: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text:
            raise InputError(f"{path}: {key}: expected a path, got {text!r}")
    return texts


def find_split(data: YoloYaml, split: str | Share | None) -> tuple[list[str], list[str]]:
    """The images of a split, and labels that are nobody's.

    Raises:
        InputError: there is no such split, or nothing where it is said to be.
    """
    if isinstance(split, str) and split not in data.splits:
        raise InputError(f"{data.path}: has no {split}; it has {', '.join(data.splits)}")
    keys = [split] if isinstance(split, str) else list(data.splits)
    images: dict[str, None] = {}
    stray: list[str] = []
    for value in dict.fromkeys(text for key in keys for text in data.splits[key]):
        place = locate(data, value)
        if os.path.isdir(place):
            found = _images_below(place)
            stray += _stray_labels(found)
        else:
            found = _listed_images(data, place)
        if not found:
            raise InputError(f"{place}: no images in it, of which {data.path} says there are")
        images.update(dict.fromkeys(found))
    names = {image: image_name(data, image) for image in images}
    if isinstance(split, Share):
        taken = split.take(list(names.values()), data.path)
        return [image for image, name in names.items() if name in taken], stray
    return list(images), stray


def image_name(data: YoloYaml, image: str) -> str:
    """An image's path from the yaml on, the same on every system."""
    return os.path.relpath(image, os.path.dirname(data.path) or ".").replace(os.sep, "/")


def label_of(image: str) -> str:
    """Where the label of an image is, or would be."""
    stem = os.path.splitext(image)[0] + ".txt"
    head, mark, tail = f"/{stem}".replace(os.sep, "/").rpartition("/images/")
    if not mark or os.path.isfile(stem):
        return stem
    return f"{head}/labels/{tail}"[1:]


def locate(data: YoloYaml, value: str) -> str:
    """Where a path of the yaml leads; InputError where nothing is."""
    # Roboflow writes ../train/images for train/images beside the yaml.
    places = [os.path.join(folder, value) for folder in data.folders]
    places += [os.path.join(folder, value.removeprefix("../")) for folder in data.folders]
    for place in places:
        if os.path.exists(place):
            return os.path.normpath(place)
    raise InputError(f"{os.path.normpath(places[0])}: not there, but {data.path} names it")


def _images_below(folder: str) -> list[str]:
    return sorted(
        os.path.join(inner, name)
        for inner, _, names in os.walk(folder)
        for name in names
        if is_image(name)
    )


def _listed_images(data: YoloYaml, path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of images: {error}") from None
    images = []
    for line in lines:
        places = [os.path.join(f, line) for f in (os.path.dirname(path), *data.folders)]
        images.append(os.path.normpath(next(filter(os.path.isfile, places), places[0])))
    return images


def _stray_labels(images: list[str]) -> list[str]:
    """Files in the folders of labels without an image; beside images, a text may be anything."""
    labels = {label_of(image) for image in images}
    folders = {os.path.dirname(label) for label in labels}
    folders -= {os.path.dirname(image) for image in images}
    return sorted(
        os.path.join(folder, name)
        for folder in folders
        if os.path.isdir(folder)
        for name in os.listdir(folder)
        if name.endswith(".txt")
        and not name.startswith(".")
        and name != "classes.txt"
        and os.path.join(folder, name) not in labels
    )
