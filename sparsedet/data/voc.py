"""VOC-style folders, with any list of classes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import InputError
from .records import Annotations, Image, Problem
from .shares import Share
from .voc_files import find_entries, has_lists, xml_files
from .voc_images import Entry, ImageFolders
from .voc_xml import VocXml, object_nodes, parse, read_xml, text


def load_voc(root: str, split: str | Share | None, classes: Sequence[str]) -> list[dict]:
    """Load one split in detectron2's standard format, or say what is wrong with it.

    Boxes follow `detectron2.data.datasets.pascal_voc`: VOC counts pixels from 1 and includes the
    last one, so xmin and ymin lose 1. Objects marked difficult are kept, and say so.

    Returns:
        as `Annotations.dicts`; annotations have `difficult`, image_id is the ID.

    Raises:
        InputError: a folder or the split is missing, an annotation or image is, an annotation
            cannot be parsed or has a class that is not in `classes`, or more than one box in
            twenty cannot be used. It names the first few and counts them.
    """
    return read_voc(root, split, classes).dicts()


def read_voc(
    root: str, split: str | Share | None, classes: Sequence[str] | None = None
) -> Annotations:
    """Read all annotations of a split and find their images, going on past bad files.

    Args:
        classes: the only ones allowed; None allows those that are there.

    Raises:
        InputError: there is no such folder or split, or it lists nothing.
    """
    entries = find_entries(root, split)
    found = Annotations(f"{root} {split}" if split else root, listed=len(entries))
    images = ImageFolders()
    used: dict[str, str] = {}  # image file -> its annotation file
    for entry in entries:
        content = _read(entry, classes, images, found)
        if content is None:
            continue
        file_name, xml = content
        if used.setdefault(file_name, entry.xml) != entry.xml:
            message = f"{entry.xml}: its image {file_name} is that of {used[file_name]} as well"
            found.problems.append(Problem("bad annotation", message))
            continue
        found.problems += xml.problems
        found.images.append(Image(entry.image_id, file_name, xml.width, xml.height, xml.objects))
    found.classes = sorted(found.boxes()) if classes is None else list(classes)
    if not isinstance(split, Share) and not has_lists(root, split):
        found.notes += images.unused(used)
    return found


def _read(
    entry: Entry, classes: Sequence[str] | None, images: ImageFolders, found: Annotations
) -> tuple[str, VocXml] | None:
    """The image file and the annotation, or a problem more."""
    try:
        xml = read_xml(entry.xml, classes)
        file_name = images.find(entry, xml.filename)
    except FileNotFoundError:
        message = f"{entry.xml}: no such annotation, but {found.title} lists it"
        found.problems.append(Problem("missing annotation", message))
        return None
    except InputError as error:
        found.problems.append(Problem("bad annotation", str(error)))
        return None
    if file_name is None:
        stem = os.path.join(entry.images, os.path.basename(entry.image_id))
        message = f"{stem}.jpg: no such image, nor of another suffix, but there is {entry.xml}"
        found.problems.append(Problem("missing image", message))
        return None
    return file_name, xml


def read_classes(root: str) -> list[str]:
    """The names in all annotations below a root, sorted: the same for each of its splits.

    Raises:
        InputError: it has no annotations, or they name nothing.
    """
    names: set[str] = set()
    for path in xml_files(root):
        try:
            names |= {text(node, "name") for node in object_nodes(parse(path))}
        except (FileNotFoundError, InputError):
            continue  # which reading the split will tell
    if not names - {""}:
        raise InputError(f"{root}: no object is annotated in it")
    return sorted(names - {""})
