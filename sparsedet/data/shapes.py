"""The demo set: pictures from `drawing`, written as a VOC-style folder and as COCO json.

root/
  JPEGImages/000001.jpg ...
  Annotations/000001.xml ...
  ImageSets/Main/{trainval,test}.txt
  annotations/{trainval,test}.json      COCO, its images in JPEGImages, with masks of what is seen
  shapes.json                           what it was made from
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import cv2
import numpy as np
from pycocotools.mask import encode
from tqdm import tqdm

from ..errors import InputError
from ..json_files import read_json
from .records import Image, Object
from .shape_pictures import SHAPE_CLASSES, draw_picture
from .writers import coco_content, voc_tree

STAMP = "shapes.json"
VERSION = 2  # raise it when a seed no longer gives the same pictures and annotations


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
        return read_json(os.path.join(root, STAMP))
    except InputError:
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
            images = []
            for i in range(count):
                rng = np.random.default_rng([stamp["seed"], split_index, i])
                image, objects, owner = draw_picture(rng, (width, height))
                number += 1
                file_name = f"{number:06d}.jpg"
                path = os.path.join(root, "JPEGImages", file_name)
                if not cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, 92]):
                    raise InputError(f"{path}: cannot be written; is the disk full?")
                drawn = [
                    Object(SHAPE_CLASSES[label], list(box), _mask(owner == index))
                    for index, (label, box) in enumerate(objects)
                ]
                images.append(Image(number, file_name, width, height, drawn))
                tree = voc_tree(images[-1], "shapes")
                tree.write(os.path.join(root, "Annotations", f"{number:06d}.xml"))
                progress.update()
            ids = "".join(f"{image.image_id:06d}\n" for image in images)
            _write_text(root, f"ImageSets/Main/{split}.txt", ids)
            content = coco_content(images, SHAPE_CLASSES, "shapes drawn over textured backgrounds")
            _write_text(root, f"annotations/{split}.json", json.dumps(content))
    _write_text(root, STAMP, json.dumps(stamp) + "\n")


def _mask(seen: np.ndarray) -> dict[str, Any]:
    """Of the pixels of an object, (height, width) bool, the fields of a COCO annotation."""
    runs = encode(np.asfortranarray(seen, dtype=np.uint8))
    return {"segmentation": runs, "area": int(seen.sum())}


def _write_text(root: str, name: str, text: str) -> None:
    with open(os.path.join(root, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
