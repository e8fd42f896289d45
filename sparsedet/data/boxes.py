"""Which boxes and image sizes can be used: one set of rules for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

OVERSHOOT = 1.0  # pixels a box may leave the image by: annotation tools that count from 0 do
LONGEST_SIDE = 1_000_000  # pixels of an image; a larger number is a fault of the file


def four_numbers(values: Any) -> list[float]:
    """Those of a box.

    Raises:
        ValueError: they are not four finite numbers; a text is none, nor is true.
    """
    if (
        not isinstance(values, (list, tuple))
        or len(values) != 4
        or any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values)
    ):
        raise ValueError("not four numbers")
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        numbers = [math.inf]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not finite")
    return numbers


def usable_box(
    corners: Sequence[float], width: int, height: int, first_pixel: int = 0
) -> list[float]:
    """The box as XYXY_ABS in continuous coordinates, clipped to its image.

    Args:
        corners: x0, y0, x1, y1 as the file has them.
        width, height: of the image, in pixels.
        first_pixel: 1 where a format counts pixels from 1 and includes the last one.

    Raises:
        ValueError: it is not finite, inverted, empty, or leaves the image by more than OVERSHOOT.
    """
    x0, y0, x1, y1 = four_numbers(corners)
    if x1 < x0 or y1 < y0:
        raise ValueError("inverted")
    if x1 == x0 or y1 == y0:
        raise ValueError("empty")
    x0, y0 = x0 - first_pixel, y0 - first_pixel
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    if (
        min(x0, y0) < -OVERSHOOT
        or x1 > width + OVERSHOOT
        or y1 > height + OVERSHOOT
        or clipped[0] >= clipped[2]
        or clipped[1] >= clipped[3]
    ):
        raise ValueError(f"outside its image of {width}x{height}")
    return clipped


def mended_box(
    corners: Sequence[float], width: int, height: int, first_pixel: int = 0
) -> list[float] | None:
    """What a box that is inverted or outside was surely meant to be, else None.

    Corners are put in order, and a box of which at least half is within the image is clipped.

    Returns:
        corners as :func:`usable_box` takes them.
    """
    try:
        x0, y0, x1, y1 = four_numbers(corners)
    except ValueError:
        return None
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    low = float(first_pixel)
    clipped = [max(x0, low), max(y0, low), min(x1, float(width)), min(y1, float(height))]
    sides = clipped[2] - clipped[0], clipped[3] - clipped[1]
    if min(sides) <= 0 or 2 * sides[0] * sides[1] < (x1 - x0) * (y1 - y0):
        return None
    return clipped


def image_size(width: Any, height: Any) -> tuple[int, int]:
    """Whole numbers of pixels.

    Raises:
        ValueError: they are not.
    """
    for side in (width, height):
        if (
            isinstance(side, bool)
            or not isinstance(side, (int, float))
            or not 0 < side <= LONGEST_SIDE
            or side != int(side)
        ):
            shown = "x".join(_short(value) for value in (width, height))
            raise ValueError(f"{shown}, which is no size in pixels; give the image's own")
    return int(width), int(height)


def _short(value: Any) -> str:
    return (f"{value:g}" if isinstance(value, float) else str(value))[:20]
