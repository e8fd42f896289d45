"""The demo set: pictures from `drawing`, written as a VOC-style folder and as COCO json.

root/
  JPEGImages/000001.jpg ...
  Annotations/000001.xml ...
  ImageSets/Main/{trainval,test}.txt
  annotations/{trainval,test}.json      COCO, its images in JPEGImages
  shapes.json                           what it was made from
"""

from __future__ import annotations

import json
import os
import tempfile
import xml.etree.ElementTree as ET

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .shape_pictures import SHAPE_CLASSES, draw_picture

STAMP = "shapes.json"
VERSION = 1  # of the pictures: raise it when a seed no longer gives the same ones


def generate_shapes(
    root: str,
    num_train: int = 800,
    num_test: int = 200,
    seed: int = 0,
    image_size: tuple[int, int] = (256, 192),
) -> bool:
    """Write the demo set, unless it is there already, made from the same arguments.

    The same arguments and library versions give the same bytes. A picture depends on the seed,
    its split and its number in it alone, so a larger set begins with the smaller one. The folder
    appears when it is complete, or not at all; one made from other arguments is replaced.

    Args:
        root: the folder to make.
        image_size: (width, height) in pixels, at least 64 each.

    Returns:
        whether it was written.

    Raises:
        InputError: `root` is there and is not a demo set, or a picture cannot be written.
    """
    if num_train < 1 or num_test < 1 or seed < 0 or min(image_size) < 64:
        raise ValueError("need at least one picture per split, a seed >= 0 and 64x64 pixels")
    stamp = {
        "version": VERSION,
        "num_train": num_train,
        "num_test": num_test,
        "seed": seed,
        "image_size": list(image_size),
    }
    root = os.path.abspath(root)
    if os.path.lexists(root) and _read_stamp(root) == stamp:
        return False
    parent = os.path.dirname(root)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".shapes-") as temporary:
        new = os.path.join(temporary, "new")
        _write(new, stamp)
        if os.path.lexists(root):
            os.replace(root, os.path.join(temporary, "old"))
        os.replace(new, root)
    return True


def _read_stamp(root: str) -> dict:
    try:
        with open(os.path.join(root, STAMP), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        raise InputError(
            f"{root}: there already, but not a demo set (no readable {STAMP}); "
            f"move it away or choose another folder"
        ) from None


def _write(root: str, stamp: dict) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "annotations"):
        os.makedirs(os.path.join(root, folder))
    width, height = stamp["image_size"]
    splits = (("trainval", stamp["num_train"]), ("test", stamp["num_test"]))
    number = 0
    with tqdm(total=sum(count for _, count in splits), desc="drawing shapes") as progress:
        for split_index, (split, count) in enumerate(splits):
            coco = _Coco()
            ids = []
            for i in range(count):
                rng = np.random.default_rng([stamp["seed"], split_index, i])
                image, objects = draw_picture(rng, (width, height))
                number += 1
                ids.append(f"{number:06d}")
                file_name = f"{ids[-1]}.jpg"
                path = os.path.join(root, "JPEGImages", file_name)
                if not cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, 92]):
                    raise InputError(f"{path}: cannot be written; is the disk full?")
                tree = _voc_tree(file_name, width, height, objects)
                tree.write(os.path.join(root, "Annotations", f"{ids[-1]}.xml"))
                coco.add(number, file_name, width, height, objects)
                progress.update()
            _write_text(root, f"ImageSets/Main/{split}.txt", "".join(f"{i}\n" for i in ids))
            _write_text(root, f"annotations/{split}.json", json.dumps(coco.content))
    _write_text(root, STAMP, json.dumps(stamp) + "\n")


def _write_text(root: str, name: str, text: str) -> None:
    with open(os.path.join(root, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _voc_tree(file_name: str, width: int, height: int, objects) -> ET.ElementTree:
    top = ET.Element("annotation")
    _add(top, folder="shapes", filename=file_name)
    _add(ET.SubElement(top, "size"), width=width, height=height, depth=3)
    for label, (x0, y0, x1, y1) in objects:
        node = ET.SubElement(top, "object")
        _add(node, name=SHAPE_CLASSES[label], pose="Unspecified", truncated=0, difficult=0)
        # VOC counts pixels from 1 and includes the last one.
        _add(ET.SubElement(node, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
    ET.indent(top)
    return ET.ElementTree(top)


def _add(parent: ET.Element, **fields) -> None:
    for name, value in fields.items():
        ET.SubElement(parent, name).text = str(value)


class _Coco:
    """COCO instances of one split, boxes only."""

    def __init__(self):
        self.content = {
            "info": {"description": "shapes drawn over textured backgrounds"},
            "images": [],
            "annotations": [],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(SHAPE_CLASSES)],
        }

    def add(self, image_id: int, file_name: str, width: int, height: int, objects) -> None:
        self.content["images"].append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height}
        )
        annotations = self.content["annotations"]
        for label, (x0, y0, x1, y1) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),  # there is no mask to measure
                    "iscrowd": 0,
                }
            )
