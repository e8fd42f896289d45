"""Every config key that sparsedet adds to detectron2's, with its meaning."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Sequence

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from .errors import InputError


def add_sparsedet_config(cfg: CfgNode) -> None:
    """Add sparsedet's keys, at their defaults, to a detectron2 config."""
    vgg = cfg.MODEL.VGG = CfgNode()
    vgg.DEPTH = 16  # 11, 13, 16 or 19
    vgg.WIDTH_MULTIPLIER = 1.0  # scales the channels of every convolution
    vgg.CHANNELS = []  # of each convolution, instead of WIDTH_MULTIPLIER; tools/prune.py sets them
    # conv1 .. conv5 (strides 1 .. 16, before pooling) and pool5 (stride 32).
    vgg.OUT_FEATURES = ["conv5"]
    vgg.NORM = ""  # as MODEL.RESNETS.NORM; "" for none

    fusion = cfg.MODEL.SPARSE_FUSION = CfgNode()
    fusion.PATTERN = "checkerboard"  # rows, columns, checkerboard, quad, cross or whole
    fusion.RATIO = 4.0  # each sparse kernel has (output channels / RATIO) outputs
    # Names of layers in the whole model, as shell-style patterns.
    fusion.INCLUDE = ["*"]
    fusion.EXCLUDE = []
    # Layer by layer: a name (or a pattern of names) to {pattern, ranks} or {pattern, ratio}.
    # Where it is not empty, the four keys above are not used.
    fusion.PLAN = CfgNode(new_allowed=True)
    # MODEL.META_ARCHITECTURE is SparsifiedModel: what it was before PLAN, which then may name any
    # layer. tools/compress.py writes such configs.
    fusion.META_ARCHITECTURE = "GeneralizedRCNN"

    # Fine-tuning a SparsifiedModel with its dense twin as teacher: the twin's checkpoint, "" for
    # none, and the weight of each loss beside detectron2's own; 0 leaves one out.
    distillation = cfg.MODEL.DISTILLATION = CfgNode()
    distillation.TEACHER = ""
    distillation.FEATURES = 1.0
    distillation.PROPOSALS = 1.0
    distillation.BOXES = 1.0

    cfg.MODEL.ROI_BOX_HEAD.FC_RANKS = []  # of VGGBoxHead's fc6 and fc7; empty for dense ones
    cfg.MODEL.ROI_BOX_HEAD.DROPOUT = 0.5  # of VGGBoxHead, in training

    # Datasets that detectron2 does not know, by name:
    #   {format: voc, root: DIR, split: NAME, classes: [...]}
    #   {format: coco, json: FILE, images: DIR}
    # Relative paths start at $DETECTRON2_DATASETS, or at ./datasets without it.
    cfg.DATASETS.REGISTER = CfgNode(new_allowed=True)


def load_config(path: str, opts: Sequence[str] = ()) -> CfgNode:
    """The config of a yaml file and command-line overrides, its own datasets registered.

    MODEL.DEVICE, by default cuda, becomes cpu where there is no GPU.

    Args:
        path: a yaml file; ``_BASE_`` is followed as in detectron2.
        opts: KEY VALUE KEY VALUE ...

    Raises:
        InputError: no such file, not yaml, a key that does not exist, a value of another type.
    """
    from .data import register_datasets

    cfg = get_cfg()
    add_sparsedet_config(cfg)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such config file")
    if len(opts) % 2:
        raise InputError(f"config overrides come in pairs KEY VALUE: {' '.join(opts)}")
    try:
        cfg.merge_from_file(path)
    except (yaml.YAMLError, UnicodeDecodeError, FileNotFoundError) as error:
        raise InputError(f"{path}: cannot be read as a config: {_one_line(error)}") from error
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: {_explain(error, cfg)}") from error
    try:
        cfg.merge_from_list(list(opts))
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(f"{' '.join(opts)}: {_explain(error, cfg)}") from error
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        logging.getLogger(__name__).warning("no GPU is available: MODEL.DEVICE is cpu")
        cfg.MODEL.DEVICE = "cpu"
    register_datasets(cfg)
    return cfg


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _explain(error: Exception, cfg: CfgNode) -> str:
    """One line of what yacs said, with the nearest existing key where a key does not exist."""
    text = _one_line(error)
    if not text.startswith("Non-existent"):
        return text
    close = difflib.get_close_matches(text.split()[-1], _keys(cfg), n=1, cutoff=0.6)
    return text + (f"; did you mean {close[0]}?" if close else "")


def _keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _keys(value, prefix + key + ".")
    return keys
