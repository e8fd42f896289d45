"""Mended copies of COCO json files."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

from ...errors import InputError
from ..boxes import four_numbers, image_size, mended_box
from ..coco_json import category_names, is_xyxy, read_content, read_object
from ..convert import link, write_text
from ..image_sizes import upright_size
from .copies import BOX_LEFT_OUT, BOX_MENDED, FILE_LEFT_OUT, SIZE_MENDED


def fix_coco(json_file: str, image_root: str, folder: str) -> Counter[str]:
    """Write the json and, in the folder images, its images."""
    content = read_content(json_file)
    names = category_names(json_file, content)
    done: Counter[str] = Counter()
    images: dict[Any, dict] = {}
    for row in content["images"]:
        mended = _mended_image(row, image_root, done)
        if mended is None or mended["id"] in images:
            done[FILE_LEFT_OUT] += 1
            continue
        images[mended["id"]] = mended
    for row in images.values():
        new = os.path.normpath(os.path.join(folder, "images", row["file_name"]))
        if not new.startswith(os.path.join(folder, "images") + os.sep):
            raise InputError(f"{json_file}: {row['file_name']} is not below {image_root}")
        if not os.path.exists(new):
            link(os.path.join(image_root, row["file_name"]), new)
    annotations = (_mended_annotation(row, images, names, done) for row in content["annotations"])
    new_content = {
        **content,
        "images": list(images.values()),
        "annotations": [row for row in annotations if row is not None],
    }
    write_text(os.path.join(folder, os.path.basename(json_file)), json.dumps(new_content))
    return done


def _mended_image(row: Any, image_root: str, done: Counter[str]) -> dict | None:
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or "\0" in name or not _is_id(row.get("id")):
        return None
    try:
        size = upright_size(os.path.join(image_root, name))
    except InputError:
        return None
    try:
        image_size(row.get("width"), row.get("height"))
    except ValueError:
        done[SIZE_MENDED] += 1
        return {**row, "width": size[0], "height": size[1]}
    return row


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _mended_annotation(
    row: Any, images: dict[Any, dict], names: dict[int, str], done: Counter[str]
) -> dict | None:
    key = row.get("image_id") if isinstance(row, dict) else None
    if not _is_id(key) or key not in images:
        done[BOX_LEFT_OUT] += 1
        return None
    category = row.get("category_id")
    if not _is_id(category) or category not in names:
        return row  # which class is meant, only its owner knows
    width, height = images[key]["width"], images[key]["height"]
    try:
        _, lost = read_object(row, names[category], width, height)
    except ValueError:
        mended = _mended_box(row, width, height)
        done[BOX_LEFT_OUT if mended is None else BOX_MENDED] += 1
        return mended
    if lost:
        done["masks or keypoints left out"] += 1
        return {key: row[key] for key in row if key not in ("segmentation", "keypoints")}
    return row


def _mended_box(row: dict, width: int, height: int) -> dict | None:
    """Nothing of a box that may be of another form: what is clipped of it would be wrong."""
    try:
        x, y, box_width, box_height = four_numbers(row.get("bbox"))
    except ValueError:
        return None
    corners = mended_box((x, y, x + box_width, y + box_height), width, height)
    if corners is None or is_xyxy(row["bbox"], width, height):
        return None
    x0, y0, x1, y1 = corners
    mended = {**row, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    if "segmentation" not in row:
        mended["area"] = (x1 - x0) * (y1 - y0)
    try:
        read_object(mended, "", width, height)
    except ValueError:
        return None
    return mended
