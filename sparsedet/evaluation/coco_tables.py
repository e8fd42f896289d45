"""Detections and ground truth as pycocotools takes them, under ids of our own.

They run from 1 on: for pycocotools an annotation of id 0 is never found, and it sorts the ids of
images, which may be numbers and texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from detectron2.structures import BoxMode, PolygonMasks
from pycocotools.coco import COCO


def truth_row(image: int, obj: Mapping[str, Any], task: str, num_keypoints: int) -> dict:
    """An annotated object of image number ``image``, with what the task looks at."""
    box = BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYWH_ABS)
    row = {
        "image_id": image,
        "category_id": obj["category_id"],
        "bbox": box,
        "area": area(obj),
        "iscrowd": int(obj.get("iscrowd", 0)),
    }
    if task == "segm":
        row["segmentation"] = obj.get("segmentation")
        if not row["segmentation"]:  # what is found in its box counts neither way
            x, y, width, height = box
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            row.update(segmentation=[corners], iscrowd=1)
    if task == "keypoints":
        points = np.array(obj.get("keypoints") or [0.5, 0.5, 0] * num_keypoints).reshape(-1, 3)
        row["keypoints"] = (points - (0.5, 0.5, 0)).flatten().tolist()  # indices of pixels
        row["num_keypoints"] = int((points[:, 2] > 0).sum())
    return row


def found_row(
    image: int, box: list[float], label: int, score: float, extra: Mapping[str, Any]
) -> dict:
    """A detection; ``box`` is XYWH_ABS, ``extra`` has its mask or keypoints as COCO has them."""
    mask = extra.get("segmentation")
    return {
        "image_id": image,
        "category_id": int(label),
        "bbox": box,
        "area": float(pycocotools.mask.area(mask)) if mask else box[2] * box[3],
        "iscrowd": 0,
        "score": float(score),
        **extra,
    }


def encode_mask(mask: torch.Tensor) -> dict:
    """The run lengths of a mask (H, W) of booleans."""
    encoded = pycocotools.mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def table(rows: list[dict], sizes: Sequence[tuple], num_classes: int) -> COCO:
    """Rows of images 1, 2, ..., of these heights and widths, as pycocotools' data set."""
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": number, "height": height, "width": width}
            for number, (height, width) in enumerate(sizes, start=1)
        ],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows, start=1)],
    }
    coco.createIndex()
    return coco


def area(obj: Mapping[str, Any]) -> float:
    """In pixels: which objects are small, medium and large."""
    said = obj.get("area")
    if isinstance(said, (int, float)) and 0 <= said < math.inf:
        return float(said)
    segmentation = obj.get("segmentation")
    if isinstance(segmentation, list):
        return PolygonMasks([segmentation]).area().item()
    if segmentation:
        return float(pycocotools.mask.area(segmentation))
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
