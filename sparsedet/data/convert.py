"""Data sets written anew in another form: annotations as they were read, images linked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence

import yaml

from ..errors import InputError
from ..files import new_folder
from .records import Annotations, Image
from .writers import coco_content, voc_tree, yolo_lines
from .yolo_files import SPLITS


def convert(parts: Mapping[str, Annotations], form: str, output: str) -> list[str]:
    """Write all parts to a new folder.

    voc:   Annotations/, JPEGImages/, ImageSets/Main/PART.txt
    coco:  annotations/PART.json, images/
    yolo:  data.yaml, images/PART/, labels/PART/

    Masks and keypoints go to COCO alone, and YOLO takes neither crowds nor difficult.

    Args:
        parts: by the names that they get.
        form: a key of FORMS.

    Returns:
        one line on everything that the form cannot hold.

    Raises:
        InputError: the folder is there already or cannot be written, or the form cannot have such
            parts.
    """
    classes = list(dict.fromkeys(name for part in parts.values() for name in part.classes))
    named = _name_images(parts)
    with new_folder(output) as folder:
        FORMS[form](folder, named, classes)
    return _lost([image for images in parts.values() for image in images.images], form)


def link(source: str, target: str) -> None:
    """The same file in another folder; a copy where the file system has no links."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


Named = Mapping[str, Sequence[tuple[str, Image]]]
"""The images of each part, with the file each was read from; file_name is the new one."""


def _name_images(parts: Mapping[str, Annotations]) -> Named:
    """New names without folders, each once; ids are numbers."""
    names: dict[str, str] = {}  # read from -> new name
    stems: set[str] = set()
    numbers: dict[str, int] = {}
    named: dict[str, list[tuple[str, Image]]] = {}
    for part, found in parts.items():
        named[part] = []
        for image in found.images:
            source = os.path.realpath(image.file_name)
            if source not in names:
                stem, suffix = os.path.splitext(os.path.basename(image.file_name))
                stem = _unused(stem, stems)
                stems.add(stem)
                names[source], numbers[source] = stem + suffix, len(numbers) + 1
            new = image._replace(file_name=names[source], image_id=numbers[source])
            named[part].append((source, new))
    return named


def _unused(stem: str, taken: set[str]) -> str:
    count, name = 1, stem
    while name in taken:
        count += 1
        name = f"{stem}-{count}"
    return name


def _write_voc(folder: str, parts: Named, classes: Sequence[str]) -> None:
    for inner in ("Annotations", "JPEGImages", "ImageSets/Main"):
        os.makedirs(os.path.join(folder, inner))
    for part, images in parts.items():
        stems = []
        for source, image in images:
            stems.append(os.path.splitext(image.file_name)[0])
            tree = voc_tree(image, "JPEGImages")
            tree.write(os.path.join(folder, "Annotations", f"{stems[-1]}.xml"))
            _link_once(source, os.path.join(folder, "JPEGImages", image.file_name))
        write_text(os.path.join(folder, f"ImageSets/Main/{part}.txt"), "\n".join(stems) + "\n")


def _write_coco(folder: str, parts: Named, classes: Sequence[str]) -> None:
    for part, images in parts.items():
        content = coco_content([image for _, image in images], classes, part)
        write_text(os.path.join(folder, f"annotations/{part}.json"), json.dumps(content))
        for source, image in images:
            _link_once(source, os.path.join(folder, "images", image.file_name))


def _write_yolo(folder: str, parts: Named, classes: Sequence[str]) -> None:
    content: dict = {"names": list(classes), "nc": len(classes)}
    for part, images in parts.items():
        if part not in SPLITS and len(parts) > 1:
            raise InputError(f"{part}: YOLO's splits are {', '.join(SPLITS)}; name it so")
        part = part if part in SPLITS else "train"
        content[part] = f"images/{part}"
        for source, image in images:
            stem = os.path.splitext(image.file_name)[0]
            write_text(
                os.path.join(folder, f"labels/{part}/{stem}.txt"), yolo_lines(image, classes)
            )
            _link_once(source, os.path.join(folder, f"images/{part}", image.file_name))
    if "test" in content:
        content.setdefault("val", content["test"])  # without which ultralytics does not start
    write_text(os.path.join(folder, "data.yaml"), yaml.safe_dump(content, sort_keys=False))


FORMS = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo}


def _link_once(source: str, target: str) -> None:
    if not os.path.exists(target):
        link(source, target)


def write_text(path: str, text: str) -> None:
    """A file, and its folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _lost(images: Sequence[Image], form: str) -> list[str]:
    lost = {
        "coco": {},
        "voc": {"segmentation": "masks are", "keypoints": "objects' keypoints are"},
        "yolo": {
            "segmentation": "masks are",
            "keypoints": "objects' keypoints are",
            "iscrowd": "crowds are",
            "difficult": "objects' marks of being difficult are",
        },
    }[form]
    objects = [obj for image in images for obj in image.objects]
    counts = {key: sum(bool(obj.extra.get(key)) for obj in objects) for key in lost}
    return [
        f"{count} {lost[key]} left out, for which {form} has no place"
        for key, count in counts.items()
        if count
    ]
