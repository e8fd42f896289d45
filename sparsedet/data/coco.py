"""COCO json files, as detectron2 loads them, by the rules for boxes of all formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import MetadataCatalog

from ..errors import InputError
from .boxes import image_size
from .coco_json import category_names, keypoint_metadata, read_content, read_object
from .records import BAD_BOX, BAD_EXTRA, Annotations, Image, Problem
from .shares import Share


def load_coco(
    json_file: str, image_root: str, name: str, classes: Sequence[str] = ()
) -> list[dict]:
    """One COCO json in detectron2's standard format, class names put in the metadata of `name`.

    As detectron2's `load_coco_json`: images in the order of their ids, classes in the order of
    the ids of their categories. But boxes are XYXY_ABS, clipped to their image, and an object
    whose mask cannot be used keeps its box.

    Args:
        classes: what the metadata already says, if it does.

    Raises:
        InputError: the file or the image folder is missing, the file is not COCO instances, its
            categories are not `classes`, or what is wrong in it stops (`Annotations.stopping`).
    """
    found = read_coco(json_file, image_root)
    tell_classes(found, name, classes)
    return found.dicts()


def tell_classes(found: Annotations, name: str, classes: Sequence[str]) -> None:
    """Put the classes of a json, which category is which, and its keypoints in a set's metadata.

    Raises:
        InputError: they are not `classes`, in any order, where these are known.
    """
    if sorted(found.classes) == sorted(classes):
        found.classes = list(classes)
    elif classes:
        raise InputError(
            f"{found.title}: its categories are {', '.join(found.classes)}, but "
            f"DATASETS.REGISTER.{name}.classes is {', '.join(classes)}"
        )
    ids: dict[str, int] = {}
    for number, class_name in found.categories.items():
        ids.setdefault(class_name, number)  # two categories of one name are one class
    MetadataCatalog.get(name).set(
        thing_classes=found.classes,
        thing_dataset_id_to_contiguous_id={
            ids[class_name]: i for i, class_name in enumerate(found.classes)
        },
        **found.keypoints,
    )


def read_coco(json_file: str, image_root: str, share: Share | None = None) -> Annotations:
    """Read all of a json and find its images, going on past what cannot be used.

    Raises:
        InputError: the file or the image folder is missing, or it is not COCO instances.
    """
    content = read_content(json_file)
    if not os.path.isdir(image_root):
        raise InputError(f"{image_root}: no such image folder, for the images of {json_file}")
    names = category_names(json_file, content)
    found = Annotations(json_file, classes=list(dict.fromkeys(names.values())), categories=names)
    found.keypoints = keypoint_metadata(content)
    rows = content["images"]
    known = {_key(row.get("id")) for row in rows if isinstance(row, dict)}
    if share:
        taken = share.take([str(_file_name(row)) for row in rows], json_file)
        rows = [row for row in rows if str(_file_name(row)) in taken]
    found.listed = len(rows)
    images = _read_images(found, rows, image_root)
    for number, annotation in enumerate(content["annotations"]):
        where = f"{json_file}: annotations[{number}]"
        try:
            _read_annotation(found, where, annotation, names, images, known)
        except ValueError as error:
            found.problems.append(Problem(BAD_BOX, f"{where} {error}"))
    # detectron2's order; numbers and texts do not compare.
    found.images = [images[key] for key in sorted(images, key=lambda key: (str(type(key)), key))]
    return found


def _read_images(found: Annotations, rows: list, image_root: str) -> dict[int | str, Image]:
    images: dict[int | str, Image] = {}
    for number, row in enumerate(rows):
        try:
            image = _read_image(row, image_root)
        except ValueError as error:
            message = f"{found.title}: image {number + 1} ({_file_name(row)!r}): {error}"
            found.problems.append(Problem("bad image entry", message))
            continue
        if image.image_id in images:
            message = (
                f"{found.title}: image id {image.image_id} is that of {image.file_name} and of "
                f"{images[image.image_id].file_name}"
            )
            found.problems.append(Problem("repeated image id", message))
        elif not os.path.isfile(image.file_name):
            message = f"{image.file_name}: no such file, but {found.title} lists it"
            found.problems.append(Problem("missing image", message))
        images.setdefault(image.image_id, image)
    return images


def _read_image(row: Any, image_root: str) -> Image:
    for key in ("id", "file_name", "height", "width"):
        if not isinstance(row, dict) or key not in row:
            raise ValueError(f"no {key!r}")
    file_name = row["file_name"]
    if not isinstance(file_name, str) or not file_name or "\0" in file_name:
        raise ValueError("'file_name' is not the name of a file")
    if _key(row["id"]) is None:
        raise ValueError(f"'id' is neither a whole number nor a text: {str(row['id'])[:20]}")
    try:
        width, height = image_size(row["width"], row["height"])
    except ValueError as error:
        raise ValueError(f"its size is {error}") from None
    return Image(row["id"], os.path.join(image_root, file_name), width, height, [])


def _read_annotation(
    found: Annotations,
    where: str,
    annotation: Any,
    names: dict[int, str],
    images: dict[int | str, Image],
    known: set,
) -> None:
    """Add the object to its image, or a problem; ValueError where it cannot be used."""
    if not isinstance(annotation, dict):
        raise ValueError(f"is {str(annotation)[:20]}, not an object")
    key = _key(annotation.get("image_id"))
    if key is None or key not in known:
        raise ValueError(
            f"is of image_id {str(annotation.get('image_id'))[:20]}, which is no image"
        )
    if key not in images:
        return  # of another part, or of an image that is told already
    category = _key(annotation.get("category_id"))
    if category not in names:
        shown = str(annotation.get("category_id"))[:20]
        message = f"{where} is of category_id {shown}, which is not one of the categories"
        found.problems.append(Problem("unknown class", message))
        return
    image = images[key]
    obj, lost = read_object(annotation, names[category], image.width, image.height)
    image.objects.append(obj)
    if lost:
        found.problems.append(Problem(BAD_EXTRA, f"{where} has {lost}; its box is used"))


def _key(value: Any) -> int | str | None:
    """An id, or None: true is not 1, and a list is no id."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _file_name(row: Any) -> Any:
    return row.get("file_name") if isinstance(row, dict) else None
