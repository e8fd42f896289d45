"""What is in a COCO json: the file, its categories, one annotation of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask

from ..errors import InputError
from ..json_files import read_json
from .boxes import four_numbers, usable_box
from .records import Object

LONGEST = 7  # letters of a run length: 35 bits
LINE = (102, 204, 255)  # RGB, of a skeleton


def read_content(json_file: str) -> dict[str, Any]:
    """The content of a COCO json: images and annotations are lists, categories are usable.

    Raises:
        InputError: they are not, or it is not json.
    """
    if not os.path.exists(json_file):
        raise InputError(f"{json_file}: no such annotation file")
    content = read_json(json_file)
    if not isinstance(content, dict):
        raise InputError(f"{json_file}: not a COCO file: expected an object at the top level")
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list) or not content[key]:
            raise InputError(f"{json_file}: not a COCO instances file: no {key!r} in it")
    content["annotations"] = content.get("annotations") or []
    if not isinstance(content["annotations"], list):
        raise InputError(f"{json_file}: 'annotations' is not a list")
    category_names(json_file, content)
    return content


def category_names(json_file: str, content: Mapping[str, Any]) -> dict[int, str]:
    """The names of the categories by their ids, in the order of the ids: detectron2's order."""
    names: dict[int, str] = {}
    for row in content["categories"]:
        for key, kind, what in (("id", int, "a whole number"), ("name", str, "a text")):
            value = row.get(key) if isinstance(row, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool) or value == "":
                raise InputError(
                    f"{json_file}: {key!r} of a category is not {what}: {str(row)[:80]}"
                )
        if row["id"] in names:
            raise InputError(f"{json_file}: there are two categories of id {row['id']}")
        names[row["id"]] = row["name"]
    return dict(sorted(names.items()))


def read_classes(json_file: str) -> list[str]:
    """Names of the categories, in the order of their ids."""
    return list(category_names(json_file, read_content(json_file)).values())


def keypoint_metadata(content: Mapping[str, Any]) -> dict[str, Any]:
    """What detectron2's catalog says of keypoints, of the first category that names any.

    A flip exchanges what differs by left and right alone, as left_eye and right_eye.
    """
    rows = (row for row in content["categories"] if row.get("keypoints"))
    category = next(rows, {"keypoints": []})
    names = category["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        return {}
    lines = category.get("skeleton") or []
    pairs = [line for line in lines if isinstance(line, list) and len(line) == 2]
    return {
        "keypoint_names": names,
        "keypoint_flip_map": [
            (name, name.replace("left", "right"))
            for name in names
            if "left" in name and name.replace("left", "right") in names
        ],
        "keypoint_connection_rules": [
            (names[one - 1], names[other - 1], LINE)
            for one, other in pairs
            if all(type(end) is int and 0 < end <= len(names) for end in (one, other))
        ],
    }


def read_object(
    annotation: Mapping[str, Any], name: str, width: int, height: int
) -> tuple[Object, str]:
    """One annotation of an image of that size, and what of it is left out.

    Raises:
        ValueError: it cannot be used; the message is the rest of a sentence that begins with it.
    """
    if annotation.get("ignore", 0) != 0:
        raise ValueError("has 'ignore' set, which is not supported; use 'iscrowd'")
    extra: dict[str, Any] = {}
    for key in ("iscrowd", "difficult"):
        if key in annotation:
            if annotation[key] not in (0, 1):
                raise ValueError(f"has {key!r} {str(annotation[key])[:20]!r}, not 0 or 1")
            extra[key] = int(annotation[key])
    area = annotation.get("area")  # of the mask, by which COCO's metric tells small from large
    if type(area) in (int, float) and 0 < area <= width * height:
        extra["area"] = area
    box = _read_box(annotation, name, width, height)
    lost = ""
    try:
        if annotation.get("segmentation"):
            extra["segmentation"] = _read_mask(annotation["segmentation"], width, height)
        if annotation.get("keypoints"):
            extra["keypoints"] = _read_keypoints(annotation["keypoints"])
    except ValueError as error:
        lost = str(error)
    return Object(name, box, extra), lost


def _read_box(annotation: Mapping[str, Any], name: str, width: int, height: int) -> list[float]:
    if "bbox" not in annotation:
        raise ValueError(f"({name}) has no 'bbox'")
    shown = f"({name}) has the bbox {str(annotation['bbox'])[:80]}, which is"
    try:
        x, y, box_width, box_height = four_numbers(annotation["bbox"])
    except ValueError as error:
        raise ValueError(f"{shown} {error}") from None
    try:
        return usable_box((x, y, x + box_width, y + box_height), width, height)
    except ValueError as error:
        if is_xyxy(annotation["bbox"], width, height):
            error = ValueError(f"{error}; are these x0, y0, x1, y1? COCO has x, y, width, height")
        raise ValueError(f"{shown} {error}") from None


def is_xyxy(bbox: Any, width: int, height: int) -> bool:
    """Whether a bbox that cannot be x, y, width, height could be x0, y0, x1, y1."""
    try:
        return bool(usable_box(bbox, width, height))
    except ValueError:
        return False


def _read_mask(segmentation: Any, width: int, height: int) -> Any:
    """As detectron2 takes it: polygons of three points or more, or compressed RLE."""
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        if not polygons:
            raise ValueError("a segmentation without a polygon of three points")
        return polygons
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if counts is None or segmentation.get("size") != [height, width]:
        raise ValueError("a segmentation that is neither polygons nor RLE of its image's size")
    if isinstance(counts, str):
        if not _fills(counts, width * height):
            raise ValueError("a segmentation whose RLE is not that of its image's pixels")
        return segmentation
    if not isinstance(counts, list) or not all(type(c) is int and c >= 0 for c in counts):
        raise ValueError("a segmentation whose RLE counts are not whole numbers")
    if sum(counts) != width * height:
        raise ValueError("a segmentation whose RLE counts do not add up to its image's pixels")
    return pycocotools.mask.frPyObjects(segmentation, height, width)


def _fills(counts: str, pixels: int) -> bool:
    """Whether compressed run lengths are whole and add up; pycocotools would write past its array.

    A letter has five bits of a number, the lowest first, and whether more follow; from the fourth
    number on it is the difference to the one before the last.
    """
    letters = np.frombuffer(counts.encode("latin1", "replace"), np.uint8).astype(np.int64) - 48
    last = letters & 32 == 0
    if not len(letters) or not last[-1] or letters.min() < 0 or letters.max() > 63:
        return False
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > LONGEST:
        return False
    place = np.arange(len(letters)) - np.repeat(starts, digits)
    runs = np.add.reduceat((letters & 31) << (5 * place), starts)
    runs -= np.where(letters[ends] & 16, 1 << 5 * digits, 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs.min() >= 0 and runs.sum() == pixels


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(type(number) in (int, float) and abs(number) < 1e9 for number in polygon)
    )


def _read_keypoints(keypoints: Any) -> list[float]:
    """COCO's are indices of pixels; detectron2's the middles of those."""
    if (
        not isinstance(keypoints, list)
        or len(keypoints) % 3
        or not all(type(number) in (int, float) and abs(number) < 1e9 for number in keypoints)
    ):
        raise ValueError("keypoints that are not numbers by threes")
    return [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(keypoints)]
