"""One annotation file of Pascal VOC's form. Tags may be written in capitals."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError
from .boxes import image_size, usable_box
from .records import BAD_BOX, Object, Problem

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = 1  # VOC counts pixels from 1 and includes the last one
YES, NO = ("true", "yes"), ("", "false", "no", "unspecified")


class VocXml(NamedTuple):
    """What one file says, and which of its objects cannot be used."""

    filename: str  # of the image, without folders
    width: int
    height: int
    objects: list[Object]
    problems: list[Problem]


def read_xml(path: str, classes: Sequence[str] | None = None) -> VocXml:
    """Parse one file and check its objects.

    Args:
        classes: the only ones allowed; None allows any.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not XML, or has no size.
    """
    top = parse(path)
    try:
        width, height = read_size(top)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    objects, problems = [], []
    for number, node in enumerate(object_nodes(top), start=1):
        where = f"{path}: object {number}"
        try:
            obj = read_object(node, width, height)
        except ValueError as error:
            problems.append(Problem(BAD_BOX, f"{where} {error}"))
            continue
        if classes is None or obj.name in classes:
            objects.append(obj)
            continue
        known = ", ".join(classes)
        message = (
            f"{where} is of class {obj.name!r}, which is not one of the known classes: {known}"
        )
        problems.append(Problem("unknown class", message))
    filename = os.path.basename(text(top, "filename").replace("\\", "/"))
    return VocXml(filename, width, height, objects, problems)


def parse(path: str) -> ET.Element:
    """The top of the tree; errors as of :func:`read_xml`."""
    try:
        return ET.parse(path).getroot()
    except FileNotFoundError:
        raise
    except (ET.ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: cannot be parsed as XML: {error}") from None


def read_size(top: ET.Element) -> tuple[int, int]:
    """Width and height; ValueError where they are not in pixels."""
    try:
        sides = [float(text(top, "size", key)) for key in ("width", "height")]
    except ValueError:
        raise ValueError("no <size> with <width> and <height> in pixels") from None
    try:
        return image_size(*sides)
    except ValueError as error:
        raise ValueError(f"<size> is {error}") from None


def read_object(node: ET.Element, width: int, height: int) -> Object:
    """Raises ValueError, its message the rest of a sentence that begins with the object."""
    name = text(node, "name")
    if not name:
        raise ValueError("has no <name>")
    corners = read_corners(node)
    try:
        box = usable_box(corners, width, height, FIRST_PIXEL)
    except ValueError as error:
        shown = ", ".join(f"{key} {corner:g}" for key, corner in zip(CORNERS, corners))
        raise ValueError(f"({name}) has the box {shown}, which is {error}") from None
    return Object(name, box, {"difficult": _read_difficult(node)})


def read_corners(node: ET.Element) -> list[float]:
    """Of an object, as the file has them."""
    corners = []
    for key in CORNERS:
        value = text(node, "bndbox", key)
        try:
            corners.append(float(value))
        except ValueError:
            name = text(node, "name")
            raise ValueError(f"({name}) has no number in <bndbox><{key}>: {value!r}") from None
    return corners


def _read_difficult(node: ET.Element) -> int:
    value = text(node, "difficult").lower()
    if value in YES or value in NO:
        return int(value in YES)
    try:
        return int(float(value) != 0)
    except ValueError:
        raise ValueError(f"has <difficult> {value!r}, which is neither 1 nor 0") from None


def object_nodes(top: ET.Element) -> list[ET.Element]:
    """Of the objects; their parts are not objects."""
    return [node for node in top if node.tag.lower() == "object"]


def child(node: ET.Element, *tags: str) -> ET.Element | None:
    """The first child of that tag, its first child of the next, and so on."""
    for tag in tags:
        found = next((other for other in node if other.tag.lower() == tag), None)
        if found is None:
            return None
        node = found
    return node


def text(node: ET.Element, *tags: str) -> str:
    """What :func:`child` holds, without spaces around it; "" where there is none."""
    found = child(node, *tags)
    return "" if found is None else (found.text or "").strip()
