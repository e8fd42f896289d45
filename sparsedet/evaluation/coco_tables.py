"""Detections and ground truth as pycocotools takes them, under ids of our own.

They run from 1 on: for pycocotools an annotation of id 0 is never found, and it sorts the ids of
images, which may be numbers and texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from detectron2.structures import BoxMode, PolygonMasks
from pycocotools import mask
from pycocotools.coco import COCO


def row(image: int, label: int, box: Sequence[float], area: float, crowd: int) -> dict:
    """One annotation or detection; ``box`` is XYWH_ABS."""
    return {
        "image_id": image,
        "category_id": label,
        "bbox": box,
        "area": area,
        "iscrowd": int(crowd),
    }


def table(rows: list[dict], num_images: int, num_classes: int) -> COCO:
    """Rows of images 1, 2, ... as pycocotools' data set."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number + 1} for number in range(num_images)],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": [{**one, "id": number} for number, one in enumerate(rows, start=1)],
    }
    coco.createIndex()
    return coco


def area(obj: dict) -> float:
    """In pixels: which objects are small, medium and large."""
    said = obj.get("area")
    if isinstance(said, (int, float)) and 0 <= said < math.inf:
        return float(said)
    segmentation = obj.get("segmentation")
    if isinstance(segmentation, list):
        return PolygonMasks([segmentation]).area().item()
    if segmentation:
        return float(mask.area(segmentation))
    x0, y0, x1, y1 = BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYXY_ABS)
    return (x1 - x0) * (y1 - y0)


def with_areas(dataset: list[dict], json_file: str) -> list[dict]:
    """The dicts of a COCO json with its areas, which detectron2's loader leaves out.

    They are those of masks, to the pixel; official numbers need them.
    """
    with open(json_file, encoding="utf-8") as file:
        rows = json.load(file).get("annotations", ())
    areas = {(row["image_id"], *row["bbox"]): row["area"] for row in rows if "area" in row}

    def known(image: dict, obj: dict) -> dict:
        key = (image["image_id"], *obj["bbox"])
        return {"area": areas[key], **obj} if key in areas else obj

    return [
        {**image, "annotations": [known(image, obj) for obj in image["annotations"]]}
        for image in dataset
    ]
