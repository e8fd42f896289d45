#!/usr/bin/env python
"""Prune the channels of a VGG detector's backbone, to compare with: the library torch-pruning.

    python tools/prune.py --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --target-flops 3x --output pruned

--target-flops is a factor of the multiply-adds of the backbone. Nothing else is pruned, and neither
are the channels that the heads read (conv5_3's). Of every other convolution torch-pruning removes
the same share of channels, those of the least norm. The convolutions that are left are then fitted
to the dense ones' outputs on images, one after another (He et al., arXiv 1707.06168), as
tools/compress.py does it, for a fair comparison.

The new folder --output gets config.yaml and model.pth, plain detectron2 after ``import sparsedet``,
with the schedule of fine-tuning that tools/compress.py sets:

    python tools/train_net.py --config-file pruned/config.yaml
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from torch import nn
from tqdm import tqdm

from sparsedet import load_config
from sparsedet.analysis import count_parameters
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.checkpoint.files import new_folder
from sparsedet.compress.fit import PATCHES
from sparsedet.compress.observe import observe
from sparsedet.compress.patches import count_patches, take_patches, weight_matrix
from sparsedet.compress.statistics import Moments
from sparsedet.compress.survey import Sample, Survey
from sparsedet.engine import run
from sparsedet.engine.calibration import CalibrationImage, load_images, run_detector
from sparsedet.engine.compression import compressed_config, load_model
from sparsedet.errors import InputError
from sparsedet.modeling import VGG, dense_config

STEPS = 100
"""Channels go in steps of this share of each convolution's."""

MULTIPLE = 8
"""Numbers of channels stay multiples of it, for speed."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the dense model")
    parser.add_argument("--weights", metavar="FILE", help="default: MODEL.WEIGHTS of the config")
    parser.add_argument(
        "--images", metavar="DIR|GLOB", help="default: those of DATASETS.TRAIN in the config"
    )
    parser.add_argument("--num-images", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument(
        "--target-flops",
        type=lambda text: float(text.removesuffix("x")),
        required=True,
        metavar="FACTORx",
        help="by which the backbone's multiply-adds are to shrink",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    return args


def check_backbone(model: nn.Module) -> None:
    vgg = model.backbone
    if not isinstance(vgg, VGG) or any(type(m) is ... for m in vgg.children()):
        raise InputError("")


def prune_channels(
    vgg: VGG, outputs: Mapping[str, float], factor: float
) -> dict[str, torch.Tensor]:
    """Remove channels until the multiply-adds are ``factor`` times fewer.

    Args:
        outputs: of each convolution, the positions in an image.

    Returns:
        of each convolution, the numbers of the channels that are left

    Raises:
        InputError: torch-pruning is not installed, or the factor is out of reach.
    """
    try:
        import torch_pruning
    except ImportError:
        raise InputError("torch-pruning is not installed: pip install torch-pruning") from None
    convs = {conv: name for name, conv in vgg.named_children()}

    def work():
        return sum(outputs[name] * conv.weight.numel() for conv, name in convs.items())

    features = {vgg.stages[min(int(name[-1]), 5) - 1][-1] for name in vgg.output_shape()}
    vgg.requires_grad_(True)  # by which it finds out what is connected with what
    pruner = torch_pruning.pruner.BasePruner(
        vgg,
        torch.zeros(1, 3, 64, 64, device=next(vgg.parameters()).device),
        torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        round_to=MULTIPLE,
        ignored_layers=[getattr(vgg, name) for name in features],
    )
    kept = {name: torch.arange(conv.out_channels) for conv, name in convs.items()}
    dense = work()
    while dense < factor * work():
        if pruner.current_step == STEPS:
            raise InputError(
                f"--target-flops {factor:g}x: out of reach; at most {dense / work():.1f}x"
            )
        for group in pruner.step(interactive=True):
            name, removed = convs[group[0].dep.target.module], set(group[0].idxs)
            left = [channel for i, channel in enumerate(kept[name].tolist()) if i not in removed]
            kept[name] = torch.tensor(left)
            group.prune()
    return kept
