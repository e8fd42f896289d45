"""What the values of a config may be: one line for one that cannot work, before any work."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    RPN_HEAD_REGISTRY,
)

from ..config import leaves
from ..errors import InputError

# A key, whether a value will do, and what is expected.
Rule = tuple[str, Callable[[Any], bool], str]

_POSITIVE = (lambda value: value > 0, "expected a number above 0")
_AT_LEAST_0 = (lambda value: value >= 0, "expected 0 or more")
_AT_LEAST_1 = (lambda value: value >= 1, "expected 1 or more")
_SHARE = (lambda value: 0 <= value <= 1, "expected a number from 0 to 1")
_NAMES = (lambda value: all(isinstance(name, str) for name in value), "expected names")
_FOUR = (lambda v: len(v) == 4 and min(v) > 0, "expected four numbers above 0")
_LOSS = (
    lambda value: value in ("smooth_l1", "giou", "diou", "ciou"),
    "expected smooth_l1, giou, diou or ciou",
)

# Of what a model is and sees.
MODEL: Sequence[Rule] = (
    ("MODEL.ROI_HEADS.NUM_CLASSES", *_AT_LEAST_1),
    ("MODEL.RETINANET.NUM_CLASSES", *_AT_LEAST_1),
    ("MODEL.CLASSIFIER.NUM_CLASSES", *_AT_LEAST_1),
    ("MODEL.CLASSIFIER.SIZE", *_AT_LEAST_1),
    ("MODEL.CLASSIFIER.LEAST_AREA", *_SHARE),
    ("MODEL.CLASSIFIER.FROZEN", *_NAMES),
    ("MODEL.RPN.PRE_NMS_TOPK_TEST", *_AT_LEAST_1),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", *_AT_LEAST_1),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", *_FOUR),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", *_FOUR),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", *_SHARE),
    ("MODEL.RETINANET.SCORE_THRESH_TEST", *_SHARE),
    ("MODEL.PIXEL_MEAN", lambda v: len(v) > 0 and all(map(math.isfinite, v)), "expected numbers"),
    ("MODEL.PIXEL_STD", lambda v: len(v) > 0 and min(v) > 0, "expected numbers above 0"),
    ("INPUT.MIN_SIZE_TEST", *_AT_LEAST_0),
    ("INPUT.MAX_SIZE_TEST", *_AT_LEAST_1),
    ("DATASETS.TRAIN", *_NAMES),
    ("DATASETS.TEST", *_NAMES),
    ("SEED", lambda value: value < 2**31, "expected a number below 2**31"),
)

EVALUATION: Sequence[Rule] = (
    ("DATASETS.TEST", lambda v: len(v) > 0, "expected the name of a dataset at least"),
)

# Of how it is trained.
TRAINING: Sequence[Rule] = (
    ("DATASETS.TRAIN", lambda v: len(v) > 0, "expected the name of a dataset at least"),
    ("SOLVER.IMS_PER_BATCH", *_AT_LEAST_1),
    ("SOLVER.MAX_ITER", *_AT_LEAST_1),
    ("SOLVER.BASE_LR", *_POSITIVE),
    ("SOLVER.BIAS_LR_FACTOR", *_AT_LEAST_0),
    ("SOLVER.GAMMA", *_POSITIVE),
    ("SOLVER.MOMENTUM", lambda value: 0 <= value < 1, "expected a number from 0 to below 1"),
    ("SOLVER.WEIGHT_DECAY", *_AT_LEAST_0),
    ("SOLVER.WEIGHT_DECAY_NORM", *_AT_LEAST_0),
    ("SOLVER.WARMUP_ITERS", *_AT_LEAST_0),
    ("SOLVER.WARMUP_FACTOR", *_SHARE),
    ("SOLVER.CHECKPOINT_PERIOD", *_AT_LEAST_1),
    ("SOLVER.STEPS", lambda v: list(v) == sorted(set(v)), "expected increasing iterations"),
    ("DATALOADER.NUM_WORKERS", *_AT_LEAST_0),
    ("INPUT.MIN_SIZE_TRAIN", lambda v: len(v) > 0 and min(v) >= 0, "expected a list of pixels"),
    ("INPUT.MAX_SIZE_TRAIN", *_AT_LEAST_1),
    (
        "INPUT.MIN_SIZE_TRAIN_SAMPLING",
        lambda v: v in ("choice", "range"),
        "expected choice or range",
    ),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", *_AT_LEAST_1),
    ("MODEL.RPN.POST_NMS_TOPK_TRAIN", *_AT_LEAST_1),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", *_LOSS),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", *_LOSS),
    ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", *_AT_LEAST_1),
    ("MODEL.RPN.POSITIVE_FRACTION", *_SHARE),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", *_AT_LEAST_1),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", *_SHARE),
)

REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.SPARSE_FUSION.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
}
UNREGISTERED = ("", "PrecomputedProposals")  # names that detectron2 knows of itself


def check_values(cfg: CfgNode, defaults: CfgNode) -> None:
    """Check what every command reads.

    Args:
        defaults: a config of the same keys.

    Raises:
        InputError: a value is missing, is not a number where one is needed or is out of range, or
            a name is not registered.
    """
    _check_presence(cfg, defaults)
    check_rules(cfg, MODEL)
    for key, registry in REGISTRIES.items():
        name = _value(cfg, key)
        if name not in UNREGISTERED and name not in registry:
            close = difflib.get_close_matches(str(name), [known for known, _ in registry], n=1)
            hint = f"did you mean {close[0]}?" if close else "import what registers it first"
            raise InputError(f"{key}: {name!r} is not registered; {hint}")
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        raise InputError(f"MODEL.PIXEL_STD is {std!r}; expected as many as PIXEL_MEAN {mean!r}")
    for head in ("RPN", "ROI_HEADS", "RETINANET"):
        labels, thresholds = cfg.MODEL[head].IOU_LABELS, cfg.MODEL[head].IOU_THRESHOLDS
        if len(labels) != len(thresholds) + 1:
            raise InputError(
                f"MODEL.{head}.IOU_LABELS is {labels!r}; expected a label below, between and above "
                f"the IOU_THRESHOLDS {thresholds!r}"
            )
    _check_device(cfg.MODEL.DEVICE)


def check_rules(cfg: CfgNode, rules: Sequence[Rule]) -> None:
    """Raise InputError for the first rule that the config breaks."""
    for key, good, expected in rules:
        value = _value(cfg, key)
        try:
            kept = good(value)
        except TypeError:  # a list of other things than numbers
            kept = False
        if not kept:
            raise InputError(f"{key} is {value!r}; {expected}")


def _check_presence(cfg: CfgNode, defaults: CfgNode) -> None:
    for key, value in leaves(cfg):
        try:
            default = _value(defaults, key)
        except KeyError:  # of what may have any keys, as a plan
            continue
        if value is None and default is not None:
            raise InputError(f"{key} has no value; give it one or leave the key out: {default!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key} is {value!r}; expected a number")


def _check_device(device: str) -> None:
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise InputError(f"MODEL.DEVICE {device!r}: no such device; cpu or cuda") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"MODEL.DEVICE {device}: PyTorch finds {count} GPUs here; choose cpu")


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
