"""One picture of the demo set: shapes drawn over a textured background.

Every picture is a pure function of a `numpy.random.Generator`. Colours are BGR floats in [0, 255].
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

SHAPE_CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")

MIN_SIZE = 16  # pixels, the longer side of the smallest shape
MAX_SIZE = 0.55  # of the longer side of the picture
MIN_VISIBLE = 0.5  # of a shape's pixels, after all others are drawn
MAX_IOU = 0.4  # between the boxes of two shapes
SUPERSAMPLE = 4  # antialiasing: masks are drawn this much larger, then averaged


def draw_picture(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int, int]]], np.ndarray]:
    """Draw one picture.

    Args:
        rng: the only source of randomness.
        size: (width, height) in pixels.

    Returns:
        image: uint8 BGR, (height, width, 3).
        objects: [(class index in SHAPE_CLASSES, (x0, y0, x1, y1))], the box in whole pixels with
            x1 and y1 exclusive, tight around the shape as if nothing covered it.
        owner: int32, (height, width), the index of the object that is seen at a pixel, or -1.
    """
    width, height = size
    image = _background(rng, width, height)
    owner = np.full((height, width), -1, dtype=np.int32)
    areas: list[int] = []
    objects: list[tuple[int, tuple[int, int, int, int]]] = []
    longest = min(MAX_SIZE * max(size), 0.9 * min(size))
    sizes = np.exp(rng.uniform(np.log(MIN_SIZE), np.log(longest), size=rng.integers(3, 8)))
    for side in sorted(sizes, reverse=True):  # small ones last, or large ones would hide them
        label = int(rng.integers(len(SHAPE_CLASSES)))
        alpha, edge = _mask(rng, SHAPE_CLASSES[label], side)
        shape_height, shape_width = alpha.shape
        solid = alpha >= 0.5
        for _ in range(20):
            x = int(rng.integers(width - shape_width + 1))
            y = int(rng.integers(height - shape_height + 1))
            window = np.s_[y : y + shape_height, x : x + shape_width]
            box = (x, y, x + shape_width, y + shape_height)
            if _fits(box, solid, owner, owner[window], areas, objects):
                _paint(rng, image, window, alpha, edge, side)
                owner[window][solid] = len(objects)
                areas.append(int(solid.sum()))
                objects.append((label, box))
                break
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), objects, owner


def _fits(box, solid, owner, owner_here, areas, objects) -> bool:
    """Whether all earlier objects stay visible, and none has nearly the same box."""
    others = torch.tensor([other for _, other in objects], dtype=torch.float64).reshape(-1, 4)
    if (box_iou(torch.tensor([box], dtype=torch.float64), others) > MAX_IOU).any():
        return False
    covered = owner_here[solid]
    return all(
        (owner == i).sum() - (covered == i).sum() >= MIN_VISIBLE * areas[i]
        for i in np.unique(covered[covered >= 0])
    )


def _outline(name: str) -> list[np.ndarray]:
    """Closed polygons of a shape around the origin; a second one is a hole."""

    def polygon(corners, radii=(1.0,)):
        angle = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2
        return np.resize(radii, corners)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    if name == "circle":
        return [polygon(96)]
    if name == "ring":
        return [polygon(96), polygon(96, (0.55,))]
    if name == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])]
    if name == "triangle":
        return [polygon(3)]
    if name == "star":
        return [polygon(10, (1.0, 0.42))]
    if name == "cross":
        a, b = 0.36, 1.0
        return [
            np.array(
                [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a]]
                + [[a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]]
            )
        ]
    raise ValueError(f"unknown shape {name!r}, expected one of {SHAPE_CLASSES}")


def _mask(rng, name: str, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of a shape and of its rim, float in [0, 1], cropped to the pixels it touches."""
    outline = _outline(name)
    angle = np.deg2rad(rng.uniform(-20, 20))
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outline = [polygon * (stretch, 1 / stretch) @ turn.T for polygon in outline]
    low, high = outline[0].min(0), outline[0].max(0)
    scale = side / (high - low).max()
    points = [
        np.rint((polygon - low) * scale * SUPERSAMPLE).astype(np.int32) for polygon in outline
    ]
    cells = np.ceil((high - low) * scale).astype(int) + 1
    fine = np.zeros((cells[1] * SUPERSAMPLE, cells[0] * SUPERSAMPLE), dtype=np.uint8)
    rim = fine.copy()
    cv2.fillPoly(fine, points, 255)
    cv2.polylines(rim, points, True, 255, thickness=max(3, int(0.07 * side * SUPERSAMPLE)))
    rim &= fine
    alpha, edge = (
        cv2.resize(m, tuple(int(c) for c in cells), interpolation=cv2.INTER_AREA) / 255.0
        for m in (fine, rim)
    )
    rows = np.flatnonzero((alpha >= 0.25).any(1))
    columns = np.flatnonzero((alpha >= 0.25).any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return alpha[window], edge[window]


def _paint(rng, image, window, alpha, edge, side) -> None:
    """Lay a textured shape with a darker rim and a soft shadow on `image`, in place."""
    here = image[window]
    under = here[alpha >= 0.5].mean(0)
    colour = _colour(rng, saturation=(0.55, 1.0), value=(0.45, 1.0))
    while np.abs(colour - under).max() < 70:  # a shape must stand out from what it covers
        colour = _colour(rng, saturation=(0.55, 1.0), value=(0.45, 1.0))
    _shadow(image, window, alpha, side)
    height, width = alpha.shape
    shade = 1 + 0.4 * (_texture(rng, width, height) - 0.5)
    fill = np.clip(colour * shade[..., None], 0, 255) * (1 - 0.5 * edge[..., None])
    here += alpha[..., None] * (fill - here)


def _shadow(image, window, alpha, side) -> None:
    height, width = image.shape[:2]
    offset = 0.03 * side + 0.5
    shadow = np.zeros((height, width), dtype=np.float32)
    shadow[window] = alpha
    shift = np.float32([[1, 0, offset], [0, 1, offset]])
    shadow = cv2.warpAffine(shadow, shift, (width, height))
    image *= 1 - 0.45 * cv2.GaussianBlur(shadow, (0, 0), 0.5 + offset)[..., None]


def _colour(rng, saturation, value) -> np.ndarray:
    hsv = np.float32([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255


def _texture(rng, width: int, height: int) -> np.ndarray:
    """A random smooth pattern in [0, 1], float32 (height, width)."""
    kind = rng.integers(4)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    if kind == 0:  # gradient
        return (along - along.min()) / max(float(np.ptp(along)), 1.0)
    if kind == 1:  # clouds
        return _clouds(rng, width, height)
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    wave = np.float32(2 * np.pi / rng.uniform(5, 24))
    if kind == 2:  # stripes, bent a little
        return 0.5 + 0.5 * np.sin(wave * along + 3 * _clouds(rng, width, height))
    return 0.5 + 0.5 * np.sin(wave * along) * np.sin(wave * across)  # dots


def _clouds(rng, width: int, height: int) -> np.ndarray:
    """Noise of three octaves in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells, weight in ((3, 0.55), (7, 0.3), (17, 0.15)):
        coarse = rng.random((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 1)


def _background(rng, width: int, height: int) -> np.ndarray:
    one = _colour(rng, saturation=(0.05, 0.45), value=(0.25, 0.95))
    two = _colour(rng, saturation=(0.05, 0.45), value=(0.25, 0.95))
    mix = _texture(rng, width, height)[..., None]
    image = one + (two - one) * mix
    image *= 0.75 + 0.5 * _clouds(rng, width, height)[..., None]
    _scribble(rng, image)
    image += rng.normal(0, 3, image.shape).astype(np.float32)
    return image.astype(np.float32)


def _scribble(rng, image) -> None:
    """Thin lines and arcs: edges that belong to no object."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(2, 7)):
        layer = np.zeros((height, width), dtype=np.uint8)
        thickness = int(rng.integers(1, 3))
        a, b = (tuple(int(v) for v in rng.integers((width, height))) for _ in range(2))
        if rng.random() < 0.5:
            cv2.line(layer, a, b, 255, thickness, cv2.LINE_AA)
        else:
            axes = tuple(int(v) for v in rng.integers(20, max(width, height), size=2))
            start = int(rng.integers(360))
            stop = start + int(rng.integers(30, 120))
            cv2.ellipse(layer, a, axes, 0, start, stop, 255, thickness, cv2.LINE_AA)
        colour = _colour(rng, saturation=(0.1, 0.8), value=(0.1, 1.0))
        image += layer[..., None] * np.float32(0.7 / 255) * (colour - image)
