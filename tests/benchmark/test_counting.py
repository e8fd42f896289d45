"""Counted costs against formulas."""

import pytest
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model

from sparsedet.benchmark.counting import count_flops
from sparsedet.compress.survey import count_parameters


@BACKBONE_REGISTRY.register()
class TwoConvolutions(Backbone):
    """3 to 8 channels at stride 4, then 8 to 16."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.first = Conv2d(3, 8, 3, stride=4, padding=1)
        self.second = Conv2d(8, 16, 3, padding=1)

    def forward(self, x):
        return {"last": self.second(self.first(x).relu()).relu()}

    def output_shape(self):
        return {"last": ShapeSpec(channels=16, stride=4)}

    @property
    def size_divisibility(self):
        return 16


def tiny_config():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "TwoConvolutions"
    cfg.MODEL.RPN.IN_FEATURES = ["last"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["last"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 3
    return cfg


def test_costs_equal_the_formula(capfd):
    model = build_model(tiny_config())
    cells = (64 // 4) * (80 // 4)  # 50 x 70 is padded to 64 x 80
    anchors = 3 * 5
    outputs = (5 + 1) + 4 * 5
    backbone = [3 * 9 * 8, 8 * 9 * 16]
    rpn_head = [16 * 9 * 16, 16 * 5 * anchors]
    box_head = [16 * 3 * 3 * 32, 32 * 32, 32 * outputs]
    biases = 8 + 16 + 16 + 5 * anchors + 32 + 32 + outputs

    assert count_parameters(model) == sum(backbone + rpn_head + box_head) + biases
    capfd.readouterr()
    assert count_flops(model, 50, 70, num_proposals=7) == {
        "backbone": cells * sum(backbone),
        "rpn_head": cells * sum(rpn_head),
        "box_head": 7 * sum(box_head),
    }
    assert capfd.readouterr() == ("", "")
    assert model.training


@pytest.mark.parametrize("name", ["FPN", "C4"])
def test_costs_of_resnets(name):
    """Batch norm and RoIAlign are free, so the box head's cost is proportional to its boxes."""
    cfg = tiny_config()
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    if name == "FPN":
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = 32
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    else:
        cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
        cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    model = build_model(cfg)
    five, ten = (count_flops(model, 64, 64, n) for n in (5, 10))
    assert ten["box_head"] == 2 * five["box_head"] > 0
    assert ten["backbone"] == five["backbone"] > 0
    if name == "FPN":
        cells = [256, 64, 16, 4, 1]
        assert ten["rpn_head"] == sum(cells) * (32 * 9 * 32 + 32 * 5 * 3)
