"""YOLO datasets: boxes, or polygons around which a box is put."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from ..errors import InputError
from .boxes import usable_box
from .image_sizes import upright_size
from .records import BAD_BOX, Annotations, Image, Object, Problem
from .shares import Share
from .yolo_files import YoloYaml, find_split, image_name, label_of, read_data_yaml


def read_yolo(root: str, split: str | Share | None) -> Annotations:
    """Read all labels of a split, going on past what cannot be used.

    An image without a label is one without objects, as long as others have some.

    Raises:
        InputError: there is no such dataset or split, or no image has a label.
    """
    data = read_data_yaml(root)
    files, stray = find_split(data, split)
    found = Annotations(f"{data.path} {split or ''}".strip(), list(data.classes), len(files))
    found.problems = [Problem("missing image", f"{s}: there is no image for it") for s in stray]
    bare = []
    for file_name in files:
        try:
            width, height = upright_size(file_name)
        except InputError as error:
            kind = "bad image" if os.path.isfile(file_name) else "missing image"
            found.problems.append(Problem(kind, str(error)))
            continue
        label = label_of(file_name)
        image = Image(image_name(data, file_name), file_name, width, height, [])
        found.images.append(image)
        if os.path.isfile(label):
            found.problems += _read_label(label, image, data)
        else:
            bare.append(file_name)
    if bare and len(bare) == len(found.images):
        raise InputError(f"{label_of(bare[0])}: no such label, nor one of the {len(bare)} images")
    if bare:
        found.notes.append(f"{len(bare)} images have no label, so no objects; the first: {bare[0]}")
    return found


def _read_label(path: str, image: Image, data: YoloYaml) -> list[Problem]:
    """Add the objects to the image."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.split() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        return [Problem("bad annotation", f"{path}: cannot be read: {error}")]
    problems = []
    for number, fields in enumerate(lines, start=1):
        if not fields:
            continue
        where = f"{path}: line {number}"
        try:
            label, box = read_line(fields, image.width, image.height, data.has_keypoints)
        except ValueError as error:
            problems.append(Problem(BAD_BOX, f"{where} {error}"))
            continue
        if label not in range(len(data.classes)):
            known = len(data.classes) - 1
            message = (
                f"{where} is of class {label:g}, but the names of {data.path} are 0 to {known}"
            )
            problems.append(Problem("unknown class", message))
            continue
        image.objects.append(Object(data.classes[int(label)], box, {}))
    return problems


def read_line(
    fields: Sequence[str], width: int, height: int, has_keypoints: bool = False
) -> tuple[float, list[float]]:
    """The class and the box (XYXY_ABS) of one line.

    Raises:
        ValueError: it cannot be used; the message is the rest of a sentence that begins with it.
    """
    try:
        label, *values = map(float, fields)
    except ValueError:
        raise ValueError(f"has something that is no number: {' '.join(fields)[:80]}") from None
    if has_keypoints:
        values = values[:4]
    corners = line_corners(values, width, height)
    try:
        return label, usable_box(corners, width, height)
    except ValueError as error:
        pixels = "; are these pixels? YOLO has shares of the image" if max(values) > 2 else ""
        raise ValueError(f"({' '.join(fields)[:80]}) is {error}{pixels}") from None


def line_corners(values: Sequence[float], width: int, height: int) -> list[float]:
    """x0, y0, x1, y1 in pixels of x, y, width, height, or of a polygon; all shares of the image."""
    if not all(map(math.isfinite, values)):
        raise ValueError("has a number that is not finite")
    if len(values) == 4:
        x, y, w, h = values
        corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        corners = [min(xs), min(ys), max(xs), max(ys)]
    else:
        raise ValueError(
            f"has {len(values)} numbers after the class; 4 are a box, 6 or more by twos a polygon"
        )
    return [corner * side for corner, side in zip(corners, (width, height) * 2)]
