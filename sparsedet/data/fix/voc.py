"""Mended copies of VOC-style folders."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections import Counter

from ...errors import InputError
from ..boxes import mended_box
from ..image_sizes import upright_size
from ..voc_files import find_all
from ..voc_images import Entry, ImageFolders
from ..voc_xml import (
    CORNERS,
    FIRST_PIXEL,
    child,
    object_nodes,
    parse,
    read_corners,
    read_object,
    read_size,
    text,
)
from ..writers import plain
from .copies import BOX_LEFT_OUT, BOX_MENDED, FILE_LEFT_OUT, SIZE_MENDED, copy_folder


def fix_voc(root: str, folder: str) -> Counter[str]:
    """Write the copy to a folder."""
    done: Counter[str] = Counter()
    changes: dict[str, str | None] = {}
    images = ImageFolders()
    known = set()
    for entry in find_all(root):
        before = done.total()
        try:
            top = _mended(entry, images, done)
        except InputError:
            done[FILE_LEFT_OUT] += 1
            changes[entry.xml] = None
            continue
        known.add(entry.image_id)
        if done.total() > before:
            changes[entry.xml] = ET.tostring(top, encoding="unicode")
    lists = os.path.join(root, "ImageSets", "Main")
    for name in os.listdir(lists) if os.path.isdir(lists) else []:
        path = os.path.join(lists, name)
        changes[path] = _mended_list(path, known, done)
    copy_folder(root, folder, changes)
    return done


def _mended(entry: Entry, images: ImageFolders, done: Counter[str]) -> ET.Element:
    """The XML of one image; InputError where there is no such image, or no XML in it."""
    top = parse(entry.xml)
    image = images.find(entry, os.path.basename(text(top, "filename").replace("\\", "/")))
    if image is None:
        raise InputError(f"{entry.xml}: no image")
    try:
        width, height = read_size(top)
    except ValueError:
        width, height = upright_size(image)
        _set_size(top, width, height)
        done[SIZE_MENDED] += 1
    for node in object_nodes(top):
        try:
            read_object(node, width, height)
        except ValueError:
            if _mend_object(node, width, height):
                done[BOX_MENDED] += 1
            else:
                top.remove(node)
                done[BOX_LEFT_OUT] += 1
    return top


def _set_size(top: ET.Element, width: int, height: int) -> None:
    size = child(top, "size")
    if size is not None:
        top.remove(size)
    size = ET.SubElement(top, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, key).text = str(value)


def _mend_object(node: ET.Element, width: int, height: int) -> bool:
    """Whether the object can be used now."""
    try:
        corners = mended_box(read_corners(node), width, height, FIRST_PIXEL)
        if corners is None:
            return False
        for key, corner in zip(CORNERS, corners):
            child(node, "bndbox", key).text = plain(corner)
        read_object(node, width, height)
    except ValueError:
        return False
    return True


def _mended_list(path: str, known: set[str], done: Counter[str]) -> str:
    """A list without the IDs that have no files; official ones of a class have two columns."""
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.rstrip() for line in file if line.strip()]
    kept = [line for line in lines if {line.strip(), line.split()[0]} & known]
    done["lines of lists left out"] += len(lines) - len(kept)
    return "".join(f"{line}\n" for line in kept)
