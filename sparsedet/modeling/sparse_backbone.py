"""A sparse backbone is its dense twin after the surgery that the config plans."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone

from .by_config import BACKBONE, sparsify_by_config
from .vgg import build_vgg_backbone, build_vgg_fpn_backbone


@BACKBONE_REGISTRY.register()
def build_sparse_vgg_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A VGG from ``cfg.MODEL.VGG``, compact by ``cfg.MODEL.SPARSE_FUSION``."""
    return sparsify_by_config(build_vgg_backbone(cfg, input_shape), cfg, BACKBONE)


@BACKBONE_REGISTRY.register()
def build_sparse_vgg_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A feature pyramid over a VGG, both compact."""
    return sparsify_by_config(build_vgg_fpn_backbone(cfg, input_shape), cfg, BACKBONE)


@BACKBONE_REGISTRY.register()
def build_sparse_resnet_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """detectron2's ResNet, compact."""
    return sparsify_by_config(build_resnet_backbone(cfg, input_shape), cfg, BACKBONE)


@BACKBONE_REGISTRY.register()
def build_sparse_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """detectron2's feature pyramid over a ResNet, both compact."""
    return sparsify_by_config(build_resnet_fpn_backbone(cfg, input_shape), cfg, BACKBONE)
