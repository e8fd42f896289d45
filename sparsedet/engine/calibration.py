"""The images on which a detector is calibrated, and how it runs on them."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Any

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from .inputs import find_images, read_image

logger = logging.getLogger(__name__)


@dataclass
class CalibrationImage:
    """A detectron2 input of one image, and what the dense model proposed and found in it."""

    inputs: list[dict[str, Any]]
    proposals: list[Instances] | None = None
    detections: list[Instances] | None = None


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
        files = [r["file_name"] for name in cfg.DATASETS.TRAIN for r in DatasetCatalog.get(name)]
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


def _prepare(image, channels: str, resize: T.Augmentation) -> CalibrationImage:
    height, width = image.shape[:2]
    if channels == "RGB":
        image = image[:, :, ::-1]
    image = resize.get_transform(image).apply_image(image)
    pixels = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
    return CalibrationImage([{"image": pixels, "height": height, "width": width}])


def run_detector(model: nn.Module, image: CalibrationImage) -> None:
    """Run a detectron2 model so that its heads see the same boxes every time.

    The first run of an image, which must be of the dense model, records its proposals and
    detections; later ones give them to the box head and to mask and keypoint heads. A model
    without proposals (RetinaNet) just runs.
    """
    generator = getattr(model, "proposal_generator", None)
    if generator is None:
        model(image.inputs)
        return
    heads = model.roi_heads
    run_given = heads.forward_with_given_boxes

    def fix_proposals(module, args, output):
        if image.proposals is None:
            image.proposals = output[0]
        return image.proposals, {}

    def fix_detections(features, instances):
        if image.detections is None:
            image.detections = instances
        # A fresh copy, for the heads write their results into it.
        copies = [
            Instances(i.image_size, pred_boxes=i.pred_boxes, pred_classes=i.pred_classes)
            for i in image.detections
        ]
        return run_given(features, copies)

    handle = generator.register_forward_hook(fix_proposals)
    heads.forward_with_given_boxes = fix_detections
    try:
        model(image.inputs)
    finally:
        handle.remove()
        del heads.forward_with_given_boxes
