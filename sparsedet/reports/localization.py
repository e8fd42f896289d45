"""Class activation maps and boxes of several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

from ..files import replacing  # noqa: E402


@dataclass(frozen=True)
class Map:
    """One picture of one model: heat (H, W) of 0 to 1, a box (4,), XYXY_ABS, and what it says."""

    heat: np.ndarray
    box: np.ndarray
    label: str


def draw_maps(
    images: Sequence[np.ndarray],
    truths: Sequence[Sequence[Sequence[float]]],
    maps: Mapping[str, Sequence[Map]],
    path: str,
) -> None:
    """Write a picture with a row for each image and a column for each model.

    Args:
        images: (H, W, 3) uint8, RGB.
        truths: for each image its true boxes, drawn white.
        maps: by model; their boxes are drawn red.
    """
    rows, columns = len(images), len(maps)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for column, (name, parts) in enumerate(maps.items()):
        for row, (image, boxes, part) in enumerate(zip(images, truths, parts)):
            ax = axes[row, column]
            ax.imshow(image)
            ax.imshow(part.heat, cmap="jet", alpha=0.45)
            for box in boxes:
                _frame(ax, box, "white")
            _frame(ax, part.box, "red")
            ax.set_title(f"{name}: {part.label}" if row == 0 else part.label, fontsize=10)
            ax.axis("off")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
    plt.close(figure)


def _frame(ax, box: Sequence[float], color: str) -> None:
    x0, y0, x1, y1 = box
    size = x1 - x0, y1 - y0
    ax.add_patch(Rectangle((x0, y0), *size, fill=False, edgecolor=color, linewidth=2))
