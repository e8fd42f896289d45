"""Mended copies of YOLO datasets."""

from __future__ import annotations

import os
from collections import Counter

import yaml

from ...errors import InputError
from ...yaml_files import read_yaml
from ..boxes import mended_box
from ..image_sizes import upright_size
from ..writers import yolo_box
from ..yolo import line_corners, read_line
from ..yolo_files import YoloYaml, find_split, label_of, locate, read_data_yaml
from .copies import BOX_LEFT_OUT, BOX_MENDED, FILE_LEFT_OUT, copy_folder


def fix_yolo(root: str, folder: str) -> Counter[str]:
    """Write the copy to a folder; all must lie below the data.yaml."""
    data = read_data_yaml(root)
    base = os.path.dirname(data.path)
    done: Counter[str] = Counter()
    files, stray = find_split(data, None)
    changes: dict[str, str | None] = dict.fromkeys(stray)
    for image in files:
        label = label_of(image)
        if not os.path.isfile(label):
            continue
        try:
            size = upright_size(image)
        except InputError:
            changes[image] = changes[label] = None
            continue
        text = _mended_label(label, *size, data.has_keypoints, done)
        if text is not None:
            changes[label] = text
    done[FILE_LEFT_OUT] += sum(text is None for text in changes.values())
    changes[data.path] = yaml.safe_dump(_own_paths(data, base), sort_keys=False)
    copy_folder(base, folder, changes)
    return done


def _own_paths(data: YoloYaml, base: str) -> dict:
    """The content of the yaml, but its paths are relative to it, so that they lead to the copy."""
    content = read_yaml(data.path)
    content.pop("path", None)
    for split, values in data.splits.items():
        places = [os.path.relpath(locate(data, value), base or ".") for value in values]
        if any(place.startswith("..") for place in places):
            raise InputError(
                f"{data.path}: {split} is not below it, so it cannot be copied with it"
            )
        content[split] = places if len(places) > 1 else places[0]
    return content


def _mended_label(
    path: str, width: int, height: int, has_keypoints: bool, done: Counter[str]
) -> str | None:
    """The new text, or None where nothing is wrong."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    before, kept = done.total(), []
    for line in lines:
        fields = line.split()
        try:
            read_line(fields, width, height, has_keypoints)
        except ValueError:
            line = _mended_line(fields, width, height)
            done[BOX_MENDED if line else BOX_LEFT_OUT] += 1
        kept += [line] if line else []
    return "".join(f"{line}\n" for line in kept) if done.total() > before else None


def _mended_line(fields: list[str], width: int, height: int) -> str:
    """A box in place of a line, or ""."""
    try:
        _, *values = [float(field) for field in fields[:5]]
        corners = line_corners(values, width, height) if len(fields) == 5 else None
    except ValueError:
        return ""
    box = mended_box(corners, width, height) if corners else None
    return f"{fields[0]} {yolo_box(box, width, height)}" if box else ""
