"""VOC-style folders, with any list of classes, as detectron2 dataset dicts.

root/
  Annotations/ID.xml
  ImageSets/Main/SPLIT.txt      one ID a line
  JPEGImages/ID.jpg             or .jpeg, .png, or what the XML's <filename> says
"""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from detectron2.structures import BoxMode

from ..errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
OVERSHOOT = 1.0  # pixels a box may leave the image by: annotation tools that count from 0 do


class Problem(NamedTuple):
    """One file of a dataset that cannot be used."""

    kind: str
    message: str


class VocObject(NamedTuple):
    """One annotated object; `box` is XYXY_ABS in detectron2's coordinates."""

    name: str
    box: list[float]
    difficult: int


class VocImage(NamedTuple):
    """What one annotation file says."""

    filename: str
    width: int
    height: int
    objects: list[VocObject]


def load_voc(root: str, split: str, classes: Sequence[str]) -> list[dict]:
    """Load one split in detectron2's standard format, or say what is wrong with it.

    Boxes follow `detectron2.data.datasets.pascal_voc`: VOC counts pixels from 1 and includes the
    last one, so xmin and ymin lose 1. Objects marked difficult are kept, and say so.

    Returns:
        one dict per image: file_name, image_id (str), height, width, annotations
        [{category_id, bbox, bbox_mode: XYXY_ABS, difficult}].

    Raises:
        InputError: a folder or the split file is missing, or an annotation or image is; an
            annotation cannot be parsed, has a box that is empty, inverted or outside, or a class
            that is not in `classes`. It names the first such file, and counts them.
    """
    images, problems = read_split(root, split, classes)
    if problems:
        more = f" (the first of {len(problems)} such files)" if len(problems) > 1 else ""
        raise InputError(problems[0].message + more)
    index = {name: i for i, name in enumerate(classes)}
    return [
        {
            "file_name": file_name,
            "image_id": image_id,
            "height": image.height,
            "width": image.width,
            "annotations": [
                {
                    "category_id": index[obj.name],
                    "bbox": obj.box,
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "difficult": obj.difficult,
                }
                for obj in image.objects
            ],
        }
        for image_id, file_name, image in images
    ]


def read_split(
    root: str, split: str, classes: Sequence[str] | None = None
) -> tuple[list[tuple[str, str, VocImage]], list[Problem]]:
    """Read all annotations of a split and find their images, going on past bad files.

    Args:
        classes: the only ones allowed; None allows any.

    Returns:
        (ID, image file, annotation) of the images that can be used, in the order listed; and
        what is wrong with each of the others.

    Raises:
        InputError: a folder or the split file is missing, or the split is empty or repeats an ID.
    """
    for folder in ("Annotations", "JPEGImages"):
        if not os.path.isdir(os.path.join(root, folder)):
            raise InputError(f"{root}: no {folder} folder, so it is not a VOC-style dataset")
    images, problems = [], []
    for image_id in _read_ids(os.path.join(root, "ImageSets", "Main", f"{split}.txt")):
        xml = os.path.join(root, "Annotations", f"{image_id}.xml")
        try:
            image = read_annotation(xml, classes)
        except FileNotFoundError:
            message = f"{xml}: no such annotation, but split {split!r} lists {image_id!r}"
            problems.append(Problem("missing annotation", message))
            continue
        except InputError as error:
            problems.append(Problem("bad annotation", str(error)))
            continue
        file_name = _find_image(os.path.join(root, "JPEGImages"), image_id, image.filename)
        if file_name is None:
            stem = os.path.join(root, "JPEGImages", image_id)
            message = f"{stem}.jpg: no such image (nor .jpeg or .png), but split {split!r} lists it"
            problems.append(Problem("missing image", message))
            continue
        images.append((image_id, file_name, image))
    return images, problems


def _read_ids(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            ids = [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such split file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of image IDs: {error}") from None
    if not ids:
        raise InputError(f"{path}: lists no image")
    image_id, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: lists {image_id!r} {times} times; keep one")
    return ids


def _find_image(folder: str, image_id: str, filename: str) -> str | None:
    names = [image_id + suffix for suffix in IMAGE_SUFFIXES]
    names += [os.path.basename(filename)] if filename.endswith(IMAGE_SUFFIXES) else []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    return None


def read_annotation(path: str, classes: Sequence[str] | None = None) -> VocImage:
    """Parse and check one annotation file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is unusable; the message names it.
    """
    try:
        tree = ET.parse(path).getroot()
    except FileNotFoundError:
        raise
    except (ET.ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: cannot be parsed as XML: {error}") from None
    try:
        width, height = (int(float(tree.find(f"size/{key}").text)) for key in ("width", "height"))
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: no <size> with <width> and <height> in pixels") from None
    if width <= 0 or height <= 0:
        raise InputError(f"{path}: <size> is {width}x{height}; give the image's own")
    objects = []
    for number, node in enumerate(tree.findall("object"), start=1):
        try:
            obj = _read_object(node, width, height)
        except ValueError as error:
            raise InputError(f"{path}: object {number} {error}") from None
        if classes is not None and obj.name not in classes:
            raise InputError(
                f"{path}: object {number} is of class {obj.name!r}, which is not one of the "
                f"known classes: {', '.join(classes)}"
            )
        objects.append(obj)
    return VocImage((tree.findtext("filename") or "").strip(), width, height, objects)


def _read_object(node: ET.Element, width: int, height: int) -> VocObject:
    """Raises ValueError, its message the rest of a sentence that begins with the object."""
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError("has no <name>")
    corners = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = node.findtext(f"bndbox/{key}")
        try:
            corners.append(float(text))
        except (TypeError, ValueError):
            raise ValueError(f"({name}) has no number in <bndbox><{key}>: {text!r}") from None
    xmin, ymin, xmax, ymax = corners
    box = f"({name}) has the box xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}"
    if not all(map(math.isfinite, corners)):
        raise ValueError(f"{box}, which is not finite")
    if xmax < xmin or ymax < ymin:
        raise ValueError(f"{box}, which is inverted; exchange min and max")
    if xmax == xmin or ymax == ymin:
        raise ValueError(f"{box}, which is empty; remove it")
    low, high = 1 - OVERSHOOT, OVERSHOOT
    if xmin < low or ymin < low or xmax > width + high or ymax > height + high:
        raise ValueError(f"{box}, which is outside its image of {width}x{height}")
    x0, y0 = max(xmin - 1, 0.0), max(ymin - 1, 0.0)
    x1, y1 = min(xmax, float(width)), min(ymax, float(height))
    difficult = (node.findtext("difficult") or "0").strip() in ("1", "true", "True")
    return VocObject(name, [x0, y0, x1, y1], int(difficult))
