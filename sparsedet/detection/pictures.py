"""What several models find in the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from ..checkpoint import model_class_names
from ..drawing import draw_boxes
from ..reports.pictures import MIN_PANEL, side_by_side

PICTURES = 8
SCORE = 0.5
"""The least of a box that is drawn."""


@torch.no_grad()
def draw_boxes_of(
    models: Mapping[str, nn.Module], images: Sequence[dict[str, Any]]
) -> list[np.ndarray]:
    """Boxes of several models by name, side by side, on a few of the images.

    Args:
        models: in eval mode.
        images: detectron2 inputs; up to eight of them are taken, evenly.

    Returns:
        (H, W, 3) uint8, BGR; none of models that find no boxes.
    """
    pictures = []
    for image in images[:: -(-len(images) // PICTURES)]:
        # Without these, the boxes are in the pixels of the image itself.
        inputs = {key: x for key, x in image.items() if key not in ("height", "width")}
        found = {name: _instances(model([inputs])) for name, model in models.items()}
        if any(instances is None for instances in found.values()):
            return []
        first = next(iter(models.values()))
        pixels = image["image"].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()
        if getattr(first, "input_format", "BGR") == "RGB":
            pixels = pixels[:, :, ::-1]
        names = model_class_names(first)
        pictures.append(_beside(pixels, found, names))
    return pictures


def _instances(output: Any) -> Instances | None:
    """What a detector gives for one image; None of any other model."""
    one = output[0] if isinstance(output, (list, tuple)) and output else None
    found = one.get("instances") if isinstance(one, Mapping) else None
    drawn = ("pred_boxes", "pred_classes", "scores")
    return found if isinstance(found, Instances) and all(map(found.has, drawn)) else None


def _beside(pixels: np.ndarray, found: Mapping[str, Instances], names: Sequence[str]) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = max(1.0, MIN_PANEL / max(height, width))
    size = round(width * scale), round(height * scale)
    enlarged = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size))
    panels = {}
    for model, instances in found.items():
        instances = instances[instances.scores > SCORE].to("cpu")
        instances = instances[instances.scores.argsort()]  # the best is drawn last
        classes = instances.pred_classes.tolist()
        labels = [
            f"{names[c] if names else c} {score:.2f}"
            for c, score in zip(classes, instances.scores.tolist())
        ]
        boxes = instances.pred_boxes.tensor.numpy() * scale
        panels[f"{model}: {len(boxes)}"] = draw_boxes(enlarged, boxes, classes, labels)
    return side_by_side(panels)
