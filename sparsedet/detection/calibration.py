"""The images on which a detector is calibrated, and how it runs on them."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn
from torch.utils._pytree import tree_map
from tqdm import tqdm

from ..errors import InputError
from ..images import find_images, read_image

logger = logging.getLogger(__name__)


@dataclass
class CalibrationImage:
    """A detectron2 input of one image, and what :func:`run_detector` has recorded of it."""

    inputs: list[dict[str, Any]]
    outputs: dict[int, Any] = field(default_factory=dict)


def load_images(
    cfg: CfgNode, folder: str | None, count: int, seed: int = 0
) -> list[CalibrationImage]:
    """``count`` random images, resized as the config tests them.

    Args:
        folder: where they are, or a pattern of files; None for the config's DATASETS.TRAIN.

    Raises:
        InputError: no image there, or more than half of those that were drawn cannot be read.
    """
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
    resize = T.ResizeShortestEdge(
        [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
    )
    images, problems = [], []
    for file in tqdm(files, desc="reading images", unit="image"):
        try:
            images.append(_prepare(read_image(file), cfg.INPUT.FORMAT, resize))
        except InputError as error:
            problems.append(str(error))
    if problems:
        message = f"{len(problems)} of {len(files)} images cannot be read; first: {problems[0]}"
        if 2 * len(problems) > len(files):
            raise InputError(f"calibration: {message}")
        logger.warning("calibration goes on without some: %s", message)
    return images


def _prepare(image: np.ndarray, channels: str, resize: T.Augmentation) -> CalibrationImage:
    """As detectron2's predictor prepares (H, W, 3) BGR; bytes, for all images are held at once."""
    height, width = image.shape[:2]
    if channels == "RGB":
        image = image[:, :, ::-1]
    image = resize.get_transform(image).apply_image(image)
    pixels = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return CalibrationImage([{"image": pixels, "height": height, "width": width}])


def run_detector(model: nn.Module, image: CalibrationImage) -> None:
    """Run a detectron2 model so that its heads see the same boxes every time.

    All boxes follow from the proposals and from what the box predictors, several in a cascade, make
    of them. The first run of an image, which must be of the dense model, records both; later ones
    go on with them instead of their own. A model without proposals (RetinaNet) just runs.
    """
    predictors = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    cascade = predictors if isinstance(predictors, nn.ModuleList) else [predictors]
    steps = [getattr(model, "proposal_generator", None), *cascade]

    def fix(module, args, output):
        # Detached: what is recorded must not hold a graph of gradients.
        return image.outputs.setdefault(steps.index(module), _detached(output))

    handles = [step.register_forward_hook(fix) for step in steps if step is not None]
    try:
        model(image.inputs)
    finally:
        for handle in handles:
            handle.remove()


def _detached(output: Any) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, output)
