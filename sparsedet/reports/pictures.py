"""Annotated pictures: detections beside ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.structures import BoxMode, Instances
from PIL import Image, ImageDraw

from ..drawing import draw_boxes, label_font

MIN_PANEL = 640  # pixels of the longer side: smaller pictures are enlarged, so that labels fit


def draw_detections(
    image: np.ndarray,
    found: Instances | Mapping[str, Instances],
    ground_truth: Sequence[dict],
    class_names: Sequence[str],
) -> np.ndarray:
    """Ground truth on the left, detections with their scores on the right, each with a caption.

    Args:
        image: (H, W, 3) uint8, BGR.
        found: `pred_boxes`, `scores`, `pred_classes`, in the image's coordinates; of several
            models by name, side by side. All are drawn: drop the doubtful ones before.
        ground_truth: annotations of the image's dataset dict.

    Returns:
        (H', W', 3) uint8, BGR; all pictures are enlarged alike if they are small.
    """
    models = found if isinstance(found, Mapping) else {"detections": found}
    height, width = image.shape[:2]
    scale = max(1.0, MIN_PANEL / max(height, width))
    size = (round(width * scale), round(height * scale))
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    def panel(boxes, classes, labels):
        scaled = np.asarray(boxes, dtype=float).reshape(-1, 4) * scale
        return draw_boxes(enlarged, scaled, classes, labels)

    true_boxes = [
        BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYXY_ABS)
        for obj in ground_truth
    ]
    true_classes = [obj["category_id"] for obj in ground_truth]
    true_labels = [
        class_names[obj["category_id"]] + (" (difficult)" if obj.get("difficult") else "")
        for obj in ground_truth
    ]
    panels = {f"ground truth: {len(true_boxes)}": panel(true_boxes, true_classes, true_labels)}
    for name, instances in models.items():
        # The best detection is drawn last, over the others.
        instances = instances.to("cpu")[instances.scores.cpu().argsort()]
        classes = instances.pred_classes.tolist()
        labels = [f"{class_names[c]} {s:.2f}" for c, s in zip(classes, instances.scores.tolist())]
        boxes = instances.pred_boxes.tensor.numpy()
        panels[f"{name}: {len(boxes)}"] = panel(boxes, classes, labels)
    return side_by_side(panels)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of one size, (H, W, 3) uint8, BGR, in a row, each under its caption."""
    first = next(iter(panels.values()))
    height, width = first.shape[:2]
    font = label_font(Image.fromarray(first))
    strip, gap = 2 * font.size, font.size // 2
    canvas = Image.new("RGB", (len(panels) * (width + gap) - gap, strip + height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (caption, panel) in enumerate(panels.items()):
        left = i * (width + gap)
        canvas.paste(Image.fromarray(np.ascontiguousarray(panel[:, :, ::-1])), (left, strip))
        draw.text((left + gap, strip // 2), caption, "#222222", font, anchor="lm")
    return np.ascontiguousarray(np.asarray(canvas)[:, :, ::-1])
