"""The images on which a detector is calibrated, as detectron2 takes them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import detectron2.data.transforms as transforms
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from tqdm import tqdm

from ..errors import InputError
from ..images import find_images, read_image
from ..runtime.detector import resized_shape
from .config import check_input_format, check_proposals
from .pixel_file import PixelFile, StoredInput

logger = logging.getLogger(__name__)
T, U = TypeVar("T"), TypeVar("U")


def load_images(
    cfg: CfgNode,
    folder: str | None,
    count: int,
    seed: int = 0,
    progress: bool = False,
    smallest_side: int = 1,
    min_size: int | None = None,
) -> list[list[StoredInput]]:
    """``count`` random images, each a batch of its own, resized as the config tests them.

    Args:
        folder: where they are, or a pattern of files; None for the config's DATASETS.TRAIN.
        progress: show a bar.
        smallest_side: of the resized image; a narrower one counts as one that cannot be read.
        min_size: their shorter side instead of INPUT.MIN_SIZE_TEST; the most for the longer one
            changes in proportion.

    Raises:
        InputError: no image there, or more than half of those that were drawn cannot be read or
            are of one colour; INPUT.FORMAT is none that images are read in; the model needs
            proposals beside images.
    """
    check_input_format(cfg)
    check_proposals(cfg)
    if count < 1:
        raise InputError(f"calibration: {count} images; it needs 1 at least")
    if folder is None:
        records = chain.from_iterable(map(DatasetCatalog.get, cfg.DATASETS.TRAIN))
        try:
            files = [record["file_name"] for record in records]
        except OSError as error:  # of a dataset that detectron2 registers
            raise InputError(f"DATASETS.TRAIN: {error}; name a folder of images") from error
        if not files:
            raise InputError("DATASETS.TRAIN: no images there to calibrate on; name a folder")
    else:
        files, problems = find_images([folder])
        if not files:
            raise InputError(f"calibration images: {problems[0]}")
    files = sorted(random.Random(seed).sample(files, min(count, len(files))))
    shorter, longer = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if min_size is not None:
        if not 1 <= min_size <= (shorter or min_size):
            raise InputError(f"calibration: min_size is {min_size}; it must be from 1 to {shorter}")
        shorter, longer = min_size, round(longer * min_size / shorter) if shorter else longer
    resize = transforms.ResizeShortestEdge([shorter, shorter], longer)

    pixel_file = PixelFile()

    def read(file: str) -> list[StoredInput]:
        image = read_image(file, cfg.INPUT.FORMAT)
        check_content(file, image)
        height, width = image.shape[:2]
        if min(resized_shape(height, width, shorter, longer)) < smallest_side:
            raise InputError(f"{file}: {width} x {height} pixels are too narrow for the model")
        return [pixel_file.keep(_prepare(image, resize), height=height, width=width)]

    return read_usable(files, read, progress)


def read_usable(chosen: Sequence[T], read: Callable[[T], U], progress: bool) -> list[U]:
    """What ``read`` gives of each, without those of which it raises InputError.

    Raises:
        InputError: more than half of them cannot be used.
    """
    images, problems = [], []
    for one in tqdm(chosen, desc="reading images", unit="image", disable=not progress):
        try:
            images.append(read(one))
        except InputError as error:
            problems.append(str(error))
    if problems:
        message = f"{len(problems)} of {len(chosen)} images cannot be used; first: {problems[0]}"
        if 2 * len(problems) > len(chosen):
            raise InputError(f"calibration: {message}")
        logger.warning("calibration goes on without some: %s", message)
    return images


def check_content(file: str, image: np.ndarray) -> None:
    """Raise InputError for an image of one colour, from which no layer can be calibrated."""
    if (image == image[0, 0]).all():
        raise InputError(f"{file}: all of one colour, which calibrates nothing")


def as_tested(image: Mapping[str, Any], settings: CfgNode) -> Mapping[str, Any]:
    """A detectron2 input at the size at which INPUT tests it; the same object if it has that."""
    pixels = image["image"]
    shape = pixels.shape[-2:]
    height, width = image.get("height", shape[0]), image.get("width", shape[1])
    tested = resized_shape(height, width, settings.MIN_SIZE_TEST, settings.MAX_SIZE_TEST)
    if settings.MIN_SIZE_TEST == 0 or tuple(shape) == tested:
        return image
    enlarged = F.interpolate(pixels[None].float(), tested, mode="bilinear", align_corners=False)
    return {**image, "image": enlarged[0]}


def _prepare(image: np.ndarray, resize: transforms.Augmentation) -> torch.Tensor:
    """As detectron2's predictor does; bytes, (3, H, W)."""
    pixels = resize.get_transform(image).apply_image(image).transpose(2, 0, 1)
    return torch.as_tensor(np.ascontiguousarray(pixels))
