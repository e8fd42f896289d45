"""Counted costs against formulas."""

import pytest
import torch
import torch.nn.functional as F
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, DeformConv, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from fvcore.nn import FlopCountAnalysis
from torch import nn

from sparsedet.benchmark.counting import count_call, count_multiply_adds
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
    assert count_multiply_adds(model, 50, 70, num_proposals=7) == {
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
    five, ten = (count_multiply_adds(model, 64, 64, n) for n in (5, 10))
    assert ten["box_head"] == 2 * five["box_head"] > 0
    assert ten["backbone"] == five["backbone"] > 0
    if name == "FPN":
        cells = [256, 64, 16, 4, 1]
        assert ten["rpn_head"] == sum(cells) * (32 * 9 * 32 + 32 * 5 * 3)


class _Backbone(nn.Module):
    """As fvcore traces it: to tensors, without names."""

    def __init__(self, model):
        super().__init__()
        self.backbone = model.backbone

    def forward(self, x):
        return list(self.backbone(x).values())


def test_fvcore_counts_the_same_but_for_resampling():
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    analysis = FlopCountAnalysis(_Backbone(model), torch.zeros(1, 3, 64, 96))
    analysis.unsupported_ops_warnings(False)
    by_operator = analysis.by_operator()
    resampling = by_operator.pop("upsample_nearest2d")
    del by_operator["batch_norm"]
    count = count_multiply_adds(model, 64, 96, 5)["backbone"]
    assert count == sum(by_operator.values())
    assert 0 < resampling < 0.0002 * count


@pytest.mark.parametrize("config", ["mask_rcnn_R_50_FPN_1x", "mask_rcnn_R_50_C4_1x"])
def test_masks_do_not_count(config):
    counts = []
    for mask_on in (True, False):
        cfg = model_zoo.get_config(f"COCO-InstanceSegmentation/{config}.yaml")
        cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON = "cpu", mask_on
        model = build_model(cfg)
        counts.append(count_multiply_adds(model, 64, 96, 5))
        assert model.roi_heads.mask_on == mask_on
    assert counts[0] == counts[1]


def test_what_counts():
    convolution = nn.Conv2d(4, 6, 3, groups=2, stride=2)
    norm = nn.BatchNorm2d(6).eval()

    def call(x):
        y = F.interpolate(norm(convolution(x)), scale_factor=2, mode="bilinear")
        return F.linear(y, y[0, 0, :3]) @ torch.ones(3, 5)

    with torch.no_grad():
        count, output = count_call(call, torch.zeros(1, 4, 9, 9))
    assert output.shape == (1, 6, 8, 5)
    assert count == 6 * 4 * 4 * 9 * 2 + 6 * 8 * 3 * 8 + 6 * 8 * 5 * 3


def test_a_deformable_convolution_costs_what_a_convolution_does():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
    x = torch.randn(2, 4, 9, 12)
    expected, y = count_call(conv, x)
    offset = torch.zeros(2, 18, *y.shape[2:])
    found, same = count_call(DeformConv(4, 6, 3, stride=2, padding=1), x, offset)
    assert found == expected > 0 and same.shape == y.shape


def test_attention_counts_in_full():
    """Of its fused forms, which a model in eval mode takes, the counter sees nothing."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    tokens = torch.rand(1, 5, 8)
    with torch.no_grad():
        found, _ = count_call(layer, tokens)
    projections, products = 5 * 4 * 8 * 8, 2 * 5 * 5 * 8
    assert found == projections + products + 5 * 2 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()
