"""VGG backbones (Simonyan and Zisserman, arXiv 1409.1556)."""

from __future__ import annotations

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from ..errors import InputError

CONVS_PER_STAGE = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(Backbone):
    """Five stages of 3x3 convolutions, each followed by 2x2 max pooling.

    Features: ``conv1`` .. ``conv5``, the last activation of each stage before its pooling, at
    strides 1, 2, 4, 8, 16; and ``pool5`` at stride 32. Convolution i of stage s is named
    ``conv{s}_{i}``, as in the original Caffe models. Stages after the last feature are not built.

    Args:
        depth: 11, 13, 16 or 19.
        width_multiplier: scales every number of channels, rounded to a multiple of 8.
        channels: of each convolution that is built, instead; empty for the usual ones.
        norm: a normalisation that ``detectron2.layers.get_norm`` knows, or "" for none.
        out_features: names of the features to return.
        freeze_at: number of stages, from the input, that are not trained.

    Raises:
        InputError: an unknown depth or feature, or channels that do not fit them.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        channels: Sequence[int] = (),
        norm: str = "",
        out_features: list[str] | tuple[str, ...] = ("conv5",),
        freeze_at: int = 0,
    ):
        super().__init__()
        if depth not in CONVS_PER_STAGE:
            known = ", ".join(map(str, CONVS_PER_STAGE))
            raise InputError(f"MODEL.VGG.DEPTH: there is no VGG-{depth}; one of {known}")
        known = [f"conv{stage}" for stage in range(1, 6)] + ["pool5"]
        unknown = set(out_features) - set(known)
        if unknown or not out_features:
            raise InputError(
                f"MODEL.VGG.OUT_FEATURES: {list(out_features)} must be some of {', '.join(known)}"
            )
        num_stages = min(5, 1 + max(known.index(name) for name in out_features))
        counts = CONVS_PER_STAGE[depth][:num_stages]
        widths = list(channels) or [
            max(8, 8 * round(width * width_multiplier / 8))
            for width, count in zip(CHANNELS, counts)
            for _ in range(count)
        ]
        if len(widths) != sum(counts) or not all(type(w) is int and w > 0 for w in widths):
            raise InputError(
                f"MODEL.VGG.CHANNELS: {widths} must be {sum(counts)} positive numbers, "
                "one for each convolution"
            )

        self.stages: list[list[str]] = []
        self._out_feature_strides, self._out_feature_channels = {"pool5": 32}, {}
        width = in_channels
        for stage, count in enumerate(counts, start=1):
            self.stages.append([f"conv{stage}_{i}" for i in range(1, count + 1)])
            for name in self.stages[-1]:
                self.add_module(name, _conv3x3(width, widths[0], norm))
                width = widths.pop(0)
            self._out_feature_strides[f"conv{stage}"] = 2 ** (stage - 1)
            self._out_feature_channels[f"conv{stage}"] = width
        self._out_feature_channels["pool5"] = width
        self._out_features = list(out_features)
        self.freeze(freeze_at)

    def freeze(self, freeze_at: int) -> None:
        """Stop training the first ``freeze_at`` stages, their batch norms included."""
        for names in self.stages[:freeze_at]:
            for name in names:
                conv = getattr(self, name)
                for parameter in conv.parameters():
                    parameter.requires_grad = False
                FrozenBatchNorm2d.convert_frozen_batchnorm(conv)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W), normalised, to the requested features by name."""
        outputs = {}
        for stage, names in enumerate(self.stages, start=1):
            if stage > 1:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for name in names:
                x = getattr(self, name)(x)
            outputs[f"conv{stage}"] = x
        if "pool5" in self._out_features:
            outputs["pool5"] = F.max_pool2d(x, kernel_size=2, stride=2)
        return {name: outputs[name] for name in self._out_features}


def _conv3x3(in_channels: int, out_channels: int, norm: str) -> nn.Module:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    weight_init.c2_msra_fill(conv)
    return conv


@BACKBONE_REGISTRY.register()
def build_vgg_backbone(cfg, input_shape: ShapeSpec) -> VGG:
    """A VGG from ``cfg.MODEL.VGG``."""
    return VGG(
        depth=cfg.MODEL.VGG.DEPTH,
        in_channels=input_shape.channels,
        width_multiplier=cfg.MODEL.VGG.WIDTH_MULTIPLIER,
        channels=cfg.MODEL.VGG.CHANNELS,
        norm=cfg.MODEL.VGG.NORM,
        out_features=cfg.MODEL.VGG.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_vgg_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid over a VGG; ``MODEL.FPN.IN_FEATURES`` ends with ``pool5`` for p2 .. p6."""
    return FPN(
        bottom_up=build_vgg_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
