"""One image or one split in the forms of VOC, COCO and YOLO. Files and folders are others' work."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .records import Image, Object
from .voc_xml import FIRST_PIXEL


def voc_tree(image: Image, folder: str) -> ET.ElementTree:
    """The XML of one image; `file_name` and `folder` are written as they are.

    VOC has no crowds: they become difficult objects, which its metric treats alike.
    """
    top = ET.Element("annotation")
    _add(top, folder=folder, filename=image.file_name)
    _add(ET.SubElement(top, "size"), width=image.width, height=image.height, depth=3)
    for obj in image.objects:
        node = ET.SubElement(top, "object")
        difficult = int(bool(obj.extra.get("difficult") or obj.extra.get("iscrowd")))
        _add(node, name=obj.name, pose="Unspecified", truncated=0, difficult=difficult)
        x0, y0, x1, y1 = obj.box
        x0, y0 = x0 + FIRST_PIXEL, y0 + FIRST_PIXEL
        corners = {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}
        _add(ET.SubElement(node, "bndbox"), **{key: plain(v) for key, v in corners.items()})
    ET.indent(top)
    return ET.ElementTree(top)


def plain(number: float) -> str:
    """At most four decimals, and none where there is nothing behind the point."""
    return f"{round(number, 4):.12g}"


def _add(parent: ET.Element, **fields: Any) -> None:
    for name, value in fields.items():
        ET.SubElement(parent, name).text = str(value)


def coco_content(
    images: Iterable[Image], classes: Sequence[str], description: str
) -> dict[str, Any]:
    """The json of one split, whose images have whole numbers for ids."""
    content: dict[str, Any] = {
        "info": {"description": description},
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
    }
    index = {name: i + 1 for i, name in enumerate(classes)}
    annotations = content["annotations"]
    for image in images:
        content["images"].append(
            {
                "id": image.image_id,
                "file_name": image.file_name,
                "width": image.width,
                "height": image.height,
            }
        )
        for obj in image.objects:
            x0, y0, x1, y1 = obj.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": index[obj.name],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    **_coco_extra(obj),
                }
            )
    return content


def _coco_extra(obj: Object) -> dict[str, Any]:
    kept = ("iscrowd", "difficult", "area")
    extra = {key: obj.extra[key] for key in kept if obj.extra.get(key)}
    mask = obj.extra.get("segmentation")
    if mask:
        if isinstance(mask, dict) and isinstance(mask["counts"], bytes):
            mask = {**mask, "counts": mask["counts"].decode()}
        extra["segmentation"] = mask
    if "keypoints" in obj.extra:
        points = np.array(obj.extra["keypoints"]).reshape(-1, 3) - [0.5, 0.5, 0]
        extra["keypoints"] = points.ravel().tolist()
        extra["num_keypoints"] = int((points[:, 2] > 0).sum())
    return extra


def yolo_lines(image: Image, classes: Sequence[str]) -> str:
    """The label of one image; crowds, which YOLO has not, are left out."""
    lines = []
    for obj in image.objects:
        if not obj.extra.get("iscrowd"):
            lines.append(
                f"{classes.index(obj.name)} {yolo_box(obj.box, image.width, image.height)}"
            )
    return "".join(f"{line}\n" for line in lines)


def yolo_box(box: Sequence[float], width: int, height: int) -> str:
    """Middle and size as shares of the image."""
    x0, y0, x1, y1 = box
    shares = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
    return " ".join(f"{share:.8f}" for share in shares)
