"""Annotated pictures: detections beside ground truth."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from detectron2.structures import BoxMode, Instances
from PIL import Image, ImageDraw, ImageFont

MIN_PANEL = 640  # pixels of the longer side: smaller pictures are enlarged, so that labels fit


def draw_detections(
    image: np.ndarray,
    instances: Instances,
    ground_truth: Sequence[dict],
    class_names: Sequence[str],
) -> np.ndarray:
    """Ground truth on the left, detections with their scores on the right, each with a caption.

    Args:
        image: (H, W, 3) uint8, BGR.
        instances: `pred_boxes`, `scores`, `pred_classes`, in the image's coordinates. All are
            drawn: drop the doubtful ones before.
        ground_truth: annotations of the image's dataset dict.

    Returns:
        (H', W', 3) uint8, BGR; both pictures are enlarged alike if they are small.
    """
    height, width = image.shape[:2]
    scale = max(1.0, MIN_PANEL / max(height, width))
    size = (round(width * scale), round(height * scale))
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    true_boxes = [
        BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYXY_ABS)
        for obj in ground_truth
    ]
    true_classes = [obj["category_id"] for obj in ground_truth]
    true_labels = [
        class_names[obj["category_id"]] + (" (difficult)" if obj.get("difficult") else "")
        for obj in ground_truth
    ]
    # The best detection is drawn last, over the others.
    instances = instances.to("cpu")[instances.scores.cpu().argsort()]
    classes = instances.pred_classes.tolist()
    labels = [f"{class_names[c]} {s:.2f}" for c, s in zip(classes, instances.scores.tolist())]
    boxes = instances.pred_boxes.tensor.numpy()

    def panel(boxes, classes, labels):
        scaled = np.asarray(boxes, dtype=float).reshape(-1, 4) * scale
        return draw_boxes(enlarged, scaled, classes, labels)

    return _side_by_side(
        {
            f"ground truth: {len(true_boxes)}": panel(true_boxes, true_classes, true_labels),
            f"detections: {len(boxes)}": panel(boxes, classes, labels),
        }
    )


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
    font = _font(picture)
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


def _side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    """Pictures of one size in a row, each under its caption."""
    first = next(iter(panels.values()))
    height, width = first.shape[:2]
    font = _font(Image.fromarray(first))
    strip, gap = 2 * font.size, font.size // 2
    canvas = Image.new("RGB", (len(panels) * (width + gap) - gap, strip + height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (caption, panel) in enumerate(panels.items()):
        left = i * (width + gap)
        canvas.paste(Image.fromarray(np.ascontiguousarray(panel[:, :, ::-1])), (left, strip))
        draw.text((left + gap, strip // 2), caption, "#222222", font, anchor="lm")
    return np.ascontiguousarray(np.asarray(canvas)[:, :, ::-1])


def _font(picture: Image.Image) -> ImageFont.FreeTypeFont:
    """matplotlib's own sans serif, sized to the picture."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), max(14, round(max(picture.size) / 45)))


def _color(class_id: int) -> tuple[int, int, int]:
    """Hues by golden ratio steps: neighbours differ, however many classes; dark under white."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * class_id) % 1, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
