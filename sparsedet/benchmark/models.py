"""The detectors of a benchmark: sparsedet's, detectron2's and torchvision's."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint import SparseDetCheckpointer
from ..detection.config import load_config
from ..errors import InputError
from .counting import count_multiply_adds
from .stages import fix_proposals
from .torchvision_models import TorchvisionDetector

TORCHVISION = "torchvision:"  # before the name of a model there


@dataclass(frozen=True)
class Setting:
    """What a detector's time depends on beside itself.

    Attributes:
        height, width: pixels of every image.
        proposals: boxes of each image that the RoI heads get.
        batch: images in one call.
        threads: of the CPU.
    """

    height: int
    width: int
    proposals: int
    batch: int
    threads: int

    def images(self) -> list[np.ndarray]:
        """Noise, each (H, W, 3) uint8."""
        generator = np.random.default_rng(0)
        size = (self.height, self.width, 3)
        return [generator.integers(0, 256, size, dtype=np.uint8) for _ in range(self.batch)]


def build_detector(config: str, weights: str | None, setting: Setting) -> nn.Module:
    """A detector whose RoI heads get exactly ``setting.proposals`` boxes in every image.

    Args:
        config: a file, a name in detectron2's model zoo, or TORCHVISION and a name there.
        weights: None for the config's own, "" for random ones, as torchvision's always are.

    Raises:
        InputError: no such config or weights, weights that do not fit, no proposals in this model.
    """
    height, width, proposals = setting.height, setting.width, setting.proposals
    torch.manual_seed(0)
    if config.startswith(TORCHVISION):
        if weights:
            raise InputError(f'{config}: --weights {weights}: it is timed with random ones, ""')
        return TorchvisionDetector(config[len(TORCHVISION) :], proposals, height, width)
    path = config
    if not os.path.isfile(path):
        with contextlib.suppress(RuntimeError):  # load_config says what is missing
            path = model_zoo.get_config_file(config)
    cfg = load_config(path)
    weights = cfg.MODEL.WEIGHTS if weights is None else weights
    cfg.MODEL.WEIGHTS = ""
    model = build_model(cfg).eval()
    if not {"proposal_generator", "roi_heads"} <= dict(model.named_children()).keys():
        raise InputError(f"{config}: not a detector with a proposal generator and RoI heads")
    rpn = model.proposal_generator
    rpn.post_nms_topk = {**rpn.post_nms_topk, False: proposals}
    rpn.pre_nms_topk = {**rpn.pre_nms_topk, False: max(proposals, rpn.pre_nms_topk[False])}
    if weights:
        SparseDetCheckpointer(model, strict=True).load(weights)
    fix_proposals(model, proposals, height, width)
    return model


def multiply_adds(model: nn.Module, setting: Setting) -> int:
    """Those for one image, as :func:`count_multiply_adds` counts them."""
    if isinstance(model, TorchvisionDetector):
        return model.count_multiply_adds(setting.height, setting.width)
    return sum(
        count_multiply_adds(model, setting.height, setting.width, setting.proposals).values()
    )
