"""Every config key that sparsedet adds to detectron2's, with its meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode

from . import modeling  # noqa: F401  what the keys name is then registered


def add_sparsedet_config(cfg: CfgNode) -> None:
    """Add sparsedet's keys, at their defaults, to a detectron2 config."""
    vgg = cfg.MODEL.VGG = CfgNode()
    vgg.DEPTH = 16  # 11, 13, 16 or 19
    vgg.WIDTH_MULTIPLIER = 1.0  # scales the channels of every convolution
    # Of each convolution, instead of WIDTH_MULTIPLIER; tools/research/prune.py sets them.
    vgg.CHANNELS = []
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
    # layer. sparsedet compress writes such configs.
    fusion.META_ARCHITECTURE = "GeneralizedRCNN"

    # Fine-tuning a SparsifiedModel with its dense twin as teacher: the twin's checkpoint, "" for
    # none, and the weight of each loss beside detectron2's own; 0 leaves one out.
    distillation = cfg.MODEL.DISTILLATION = CfgNode()
    distillation.TEACHER = ""
    distillation.FEATURES = 1.0
    distillation.PROPOSALS = 1.0
    distillation.BOXES = 1.0

    # Of an ImageClassifier: NAME is torchvision's for a network, or timm's after "timm:".
    classifier = cfg.MODEL.CLASSIFIER = CfgNode()
    classifier.NAME = "resnet50"
    classifier.NUM_CLASSES = 1000
    # Pixels of the square that it sees: in tests the middle of an image whose shorter side is
    # INPUT.MIN_SIZE_TEST, in training a random part, of LEAST_AREA of the image at least.
    classifier.SIZE = 224
    classifier.LEAST_AREA = 0.08
    classifier.FROZEN = []  # names of layers, as shell-style patterns, that are not trained

    cfg.MODEL.ROI_BOX_HEAD.FC_RANKS = []  # of VGGBoxHead's fc6 and fc7; empty for dense ones
    cfg.MODEL.ROI_BOX_HEAD.DROPOUT = 0.5  # of VGGBoxHead, in training

    # Datasets that detectron2 does not know, by name:
    #   {format: voc, root: DIR, split: NAME}
    #   {format: coco, json: FILE, images: DIR}
    #   {format: yolo, root: DIR, split: NAME}
    # and, for a classifier, which takes those above by the class of each image's largest box, too:
    #   {format: folder, root: DIR, split: NAME}, with a folder for each class
    #   {format: torchvision, root: DIR, dataset: NAME, split: NAME}
    # Without a split of its own, split: {train: 0.8} or {test: 0.2}. Also classes: [...], else
    # read from the data, and on_error: stop. Relative paths start at $DETECTRON2_DATASETS, or at
    # ./datasets without it.
    cfg.DATASETS.REGISTER = CfgNode(new_allowed=True)


def leaves(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a config, as ``SOLVER.BASE_LR``, with its value."""
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
