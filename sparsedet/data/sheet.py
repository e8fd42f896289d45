"""A contact sheet: images of a split with their boxes, to be looked at before training."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from ..drawing import draw_boxes
from ..images import read_image
from .records import Annotations, Image

CELL = 400  # pixels of the longer side of a picture
COLUMNS = 4
GAP = 8


def contact_sheet(found: Annotations, count: int = 16) -> np.ndarray:
    """A fixed sample of the images, each with its boxes and their classes.

    Returns:
        (H, W, 3) uint8, BGR; white where there is no picture.

    Raises:
        InputError: an image cannot be read.
    """
    images = [image for image in found.images if image.objects] or found.images
    images = sorted(images, key=_hash)[:count]
    cells = [_cell(image, found.classes) for image in images]
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    heights = [max(cell.shape[0] for cell in row) + GAP for row in rows]
    width = (CELL + GAP) * min(COLUMNS, len(cells)) + GAP
    sheet = np.full((sum(heights) + GAP, width, 3), 255, np.uint8)
    top = GAP
    for row, height in zip(rows, heights):
        for i, cell in enumerate(row):
            left = GAP + i * (CELL + GAP)
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        top += height
    return sheet


def _hash(image: Image) -> bytes:
    return hashlib.sha256(str(image.image_id).encode()).digest()


def _cell(image: Image, classes: list[str]) -> np.ndarray:
    pixels = read_image(image.file_name)
    scale = CELL / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(pixels, size, interpolation=method)
    boxes = np.array([obj.box for obj in image.objects]).reshape(-1, 4) * scale
    names = [obj.name for obj in image.objects]
    return draw_boxes(small, boxes, [classes.index(name) for name in names], names)
