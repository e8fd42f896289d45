"""What detectron2 builds by name: importing this package registers it all."""

from .box_head import VGGBoxHead
from .classifier import ImageClassifier, is_classifier
from .lazy import LazyCfgNode, compact_model
from .rpn_head import SparseRPNHead
from .sparse_backbone import (
    build_sparse_resnet_backbone,
    build_sparse_resnet_fpn_backbone,
    build_sparse_vgg_backbone,
    build_sparse_vgg_fpn_backbone,
)
from .sparsified import SparsifiedModel, dense_config, meta_architecture, sparsified_config
from .vgg import VGG, build_vgg_backbone, build_vgg_fpn_backbone

__all__ = [
    "ImageClassifier",
    "LazyCfgNode",
    "SparseRPNHead",
    "SparsifiedModel",
    "VGG",
    "VGGBoxHead",
    "build_sparse_resnet_backbone",
    "build_sparse_resnet_fpn_backbone",
    "build_sparse_vgg_backbone",
    "build_sparse_vgg_fpn_backbone",
    "build_vgg_backbone",
    "build_vgg_fpn_backbone",
    "compact_model",
    "dense_config",
    "is_classifier",
    "meta_architecture",
    "sparsified_config",
]
