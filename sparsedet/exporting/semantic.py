"""The semantic head of a pyramid."""

from __future__ import annotations

import torch
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import nn

from .operators import Layers, require_kind


class SemanticReader(nn.Module):
    """Scores (C, h, w) of the classes on the head's own grid, of the image and its padding.

    What runs the file enlarges them, one class after another: at the image's size they are hundreds
    of megabytes.
    """

    outputs = ("semantic",)
    score_threshold = 0.0

    def __init__(self, model: nn.Module):
        super().__init__()
        require_kind(model.sem_seg_head, "semantic head", SemSegFPNHead)
        self.sem_seg_head = Layers(model.sem_seg_head)
        self.stride = model.sem_seg_head.common_stride
        self.num_classes = model.sem_seg_head.predictor.out_channels

    def read(
        self, features: dict[str, torch.Tensor], limits: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return (self.sem_seg_head(features)[0],)
