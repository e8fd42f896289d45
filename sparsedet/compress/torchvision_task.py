"""What compression has to know of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .candidates import dense_layers
from .task import Task

FIXED = ("rpn", "roi_heads.box_predictor")
"""What all boxes follow from, in a model that has proposals."""

ANSWERS = ("cls_score", "cls_logits", "bbox_pred", "bbox_reg", "bbox_ctrness", "mask_fcn_logits")
"""Ends of the names of the layers that predict classes, boxes and masks."""


class TorchvisionDetectionTask(Task):
    """A detector of ``torchvision.models.detection``, its heads looking at the same boxes always.

    Args:
        batches: lists of images (3, H, W), of 0 to 1.
    """

    def __init__(self, batches: Iterable[Sequence[torch.Tensor]]):
        super().__init__(batches)

    def fixed(self, model: nn.Module) -> list[nn.Module]:
        """The proposals, and what the box predictor makes of them."""
        modules = dict(model.named_modules())
        return [modules[name] for name in FIXED if name in modules]

    def answers(self, model: nn.Module) -> list[str]:
        """Names of the dense layers that predict classes, boxes and masks."""
        return [name for name in dense_layers(model) if name.endswith(ANSWERS)]


def is_torchvision_detector(model: nn.Module) -> bool:
    """Whether the model is one of torchvision's detectors."""
    return type(model).__module__.startswith("torchvision.models.detection.")
