"""VGG's fully connected layers as a box head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from torch import nn

from ..compress import resolve_plan, sparsify_
from ..errors import InputError

GAIN_WITHOUT_NORM = 0.3
"""Of fresh layers on a backbone without norm, whose features are about 10 and not 1: layers that
keep such a scale start with a loss of 7 and take a hundred iterations to come down."""


@ROI_BOX_HEAD_REGISTRY.register()
class VGGBoxHead(nn.Module):
    """fc6, fc7, each with ReLU and dropout; dense, or low rank where ``fc_ranks`` is given.

    Args:
        input_shape: of the pooled features, (C, pooled height, pooled width).
        fc_dim: outputs of each layer.
        fc_ranks: () for dense layers, or the ranks of fc6 and fc7.
        dropout: probability, in training only.
        gain: scale of the fresh weights; 1 keeps the scale of the features.

    Raises:
        InputError: not two ranks, or a rank that does not fit.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        fc_dim: int,
        fc_ranks: Sequence[int],
        dropout: float,
        gain: float = 1.0,
    ):
        super().__init__()
        pooled = input_shape.channels * input_shape.height * input_shape.width
        self.fc6 = nn.Linear(pooled, fc_dim)
        self.fc7 = nn.Linear(fc_dim, fc_dim)
        for fc in (self.fc6, self.fc7):
            nn.init.normal_(fc.weight, std=gain / math.sqrt(fc.in_features))
            nn.init.zeros_(fc.bias)
        self.dropout = dropout
        if fc_ranks:
            if len(fc_ranks) != 2:
                raise InputError(
                    f"MODEL.ROI_BOX_HEAD.FC_RANKS: two ranks, of fc6 and fc7, not {list(fc_ranks)}"
                )
            ranks = {"fc6": {"rank": fc_ranks[0]}, "fc7": {"rank": fc_ranks[1]}}
            sparsify_(self, resolve_plan(self, ranks), project=False)
        self._output_size = fc_dim

    @classmethod
    def from_config(cls, cfg, input_shape):
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "fc_dim": head.FC_DIM,
            "fc_ranks": head.FC_RANKS,
            "dropout": head.DROPOUT,
            "gain": 1.0 if cfg.MODEL.VGG.NORM else GAIN_WITHOUT_NORM,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features (R, C, H, W) to (R, fc_dim)."""
        x = x.flatten(1)
        for fc in (self.fc6, self.fc7):
            x = F.dropout(F.relu(fc(x)), self.dropout, self.training)
        return x

    @property
    def output_shape(self) -> ShapeSpec:
        return ShapeSpec(channels=self._output_size)
