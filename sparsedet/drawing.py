"""Labelled boxes, regions and skeletons on a picture."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = Sequence[int]  # red, green, blue

TRANSPARENCY = 0.5  # of what covers a region


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: Sequence[int],
    labels: Sequence[str],
    palette: Sequence[Color] = (),
) -> np.ndarray:
    """A copy of the image with labelled boxes, one colour per class.

    Args:
        image: (H, W, 3) uint8, BGR
        boxes: (N, 4), XYXY_ABS
        palette: colours by class, where they are known.
    """
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    draw = ImageDraw.Draw(picture)
    font = label_font(picture)
    line = max(2, round(max(picture.size) / 320))
    for box, class_id in zip(boxes, classes):
        draw.rectangle([round(float(v)) for v in box], outline=color(class_id, palette), width=line)
    places = []
    for box, label in reversed(list(zip(boxes, labels))):  # the last one has its first choice
        text_box = draw.textbbox((0, 0), label, font, anchor="la")
        places.append(_label_place(box, text_box, picture, places))
    for place, class_id, label in zip(reversed(places), classes, labels):
        draw.rectangle(place, fill=color(class_id, palette))
        center = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        draw.text(center, label, "white", font, anchor="mm")
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def draw_regions(image: np.ndarray, regions: Iterable[tuple[np.ndarray, Color]]) -> np.ndarray:
    """A copy of the image on which each region is tinted, within a line of the full colour.

    Args:
        image: (H, W, 3) uint8, BGR
        regions: masks (H, W) bool, the uppermost last.
    """
    picture = image.copy()
    for mask, rgb in regions:
        bgr = np.array(rgb[::-1], np.uint8)
        picture[mask] = TRANSPARENCY * picture[mask] + (1 - TRANSPARENCY) * bgr
        edge = mask.copy()
        edge[1:-1, 1:-1] &= ~(mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
        picture[edge] = bgr
    return picture


def draw_texts(image: np.ndarray, texts: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8, BGR, with each text in the thick of its mask (H, W)."""
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    draw, font = ImageDraw.Draw(picture), label_font(picture)
    for text, mask in texts:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        draw.text((int(x), int(y)), text, "white", font, "mm", stroke_width=2, stroke_fill="black")
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def draw_skeletons(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Sequence[Sequence[int]],
    palette: Sequence[Color] = (),
    least: float = 0.05,
) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8, BGR, with points and the lines that join them.

    Args:
        keypoints: (N, K, 3), x, y and score.
        skeleton: pairs of keypoint indices.
        palette: colours of the lines, where they are known.
        least: points of no greater score are left out; detectron2's own default.
    """
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    draw = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 320))
    for points in keypoints:
        seen = points[:, 2] > least
        for i, (a, b) in enumerate(skeleton):
            if seen[a] and seen[b]:
                ends = [*points[a, :2].tolist(), *points[b, :2].tolist()]
                draw.line(ends, color(i, palette), width)
        for x, y in points[seen, :2].tolist():
            draw.ellipse([x - width, y - width, x + width, y + width], "white", "black")
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


def color(class_id: int, palette: Sequence[Color] = ()) -> tuple[int, ...]:
    """Of a class: the palette's where it has one.

    Else hues by golden ratio steps: neighbours differ, however many classes; dark under white.
    """
    if 0 <= class_id < len(palette):
        return tuple(palette[class_id])
    rgb = colorsys.hsv_to_rgb((0.02 + 0.618034 * class_id) % 1, 0.85, 0.75)
    return tuple(round(255 * value) for value in rgb)
