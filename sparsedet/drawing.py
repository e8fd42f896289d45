"""Labelled boxes on a picture."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: Sequence[int], labels: Sequence[str]
) -> np.ndarray:
    """A copy of the image with labelled boxes, one colour per class.

    Args:
        image: (H, W, 3) uint8, BGR
        boxes: (N, 4), XYXY_ABS
    """
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    draw = ImageDraw.Draw(picture)
    font = label_font(picture)
    line = max(2, round(max(picture.size) / 320))
    for box, class_id in zip(boxes, classes):
        draw.rectangle([round(float(v)) for v in box], outline=_color(class_id), width=line)
    places = []
    for box, label in reversed(list(zip(boxes, labels))):  # the last one has its first choice
        text_box = draw.textbbox((0, 0), label, font, anchor="la")
        places.append(_label_place(box, text_box, picture, places))
    for place, class_id, label in zip(reversed(places), classes, labels):
        draw.rectangle(place, fill=_color(class_id))
        center = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        draw.text(center, label, "white", font, anchor="mm")
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def _label_place(box, text_box, picture, taken) -> tuple[int, int, int, int]:
    """Above the box, inside at its top or below it: the first that is free."""
    pad = max(2, text_box[3] // 6)
    width, height = text_box[2] + 2 * pad, text_box[3] + 2 * pad
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    left = max(0, min(x0, picture.width - width))
    right = max(0, min(x1, picture.width) - width)
    above, inside, below = y0 - height, y0, y1
    hides_object = y1 - y0 < 4 * height
    places = [
        (x, y, x + width, y + height)
        for y in ((above, below, inside) if hides_object else (above, inside, below))
        for x in (left, right)
        if 0 <= y <= picture.height - height
    ] or [(left, 0, left + width, height)]
    for place in places:
        if not any(
            place[0] < t[2] and t[0] < place[2] and place[1] < t[3] and t[1] < place[3]
            for t in taken
        ):
            return place
    return places[0]


def label_font(picture: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans where matplotlib brings it, else Pillow's own font, sized to the picture."""
    size = max(14, round(max(picture.size) / 45))
    matplotlib = importlib.util.find_spec("matplotlib")  # which takes long to import
    if matplotlib is not None and matplotlib.origin is not None:
        path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _color(class_id: int) -> tuple[int, int, int]:
    """Hues by golden ratio steps: neighbours differ, however many classes; dark under white."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * class_id) % 1, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
