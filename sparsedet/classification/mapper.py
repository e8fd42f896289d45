"""From a labelled record to what a classifier takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torchvision.transforms import v2

from ..data import torchvision_data
from ..images import read_image
from ..runtime.classifier import middle, resize_shorter


class ClassificationMapper:
    """Reads an image, as everywhere in this package, and cuts out what the network sees.

    In training that is a random part, also mirrored, otherwise the middle of the image after its
    shorter side was resized to INPUT.MIN_SIZE_TEST.

    Raises (when called):
        InputError: the image cannot be read; it names the file.
    """

    def __init__(self, cfg: CfgNode, is_train: bool):
        keys = cfg.MODEL.CLASSIFIER
        self.size, self.shorter, self.format = keys.SIZE, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FORMAT
        self.augment = None
        if is_train:
            part = v2.RandomResizedCrop(keys.SIZE, scale=(keys.LEAST_AREA, 1), antialias=True)
            self.augment = v2.Compose([part, v2.RandomHorizontalFlip()])

    def __call__(self, record: dict) -> dict[str, Any]:
        pixels = read_pixels(record, self.format)
        if self.augment is None:
            pixels = middle(resize_shorter(pixels, self.shorter), self.size)
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return {**record, "image": image if self.augment is None else self.augment(image)}


def read_pixels(record: dict, channels: str) -> np.ndarray:
    """The image of a record, (H, W, 3) uint8."""
    if "file_name" in record:
        return read_image(record["file_name"], channels)
    pixels = torchvision_data.read_pixels(record["dataset"], record["index"])
    return pixels if channels == "RGB" else pixels[:, :, ::-1]
