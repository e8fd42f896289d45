"""What detectron2 builds by name: sizes, features, freezing, and dense twins of equal function."""

from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from sparsedet import add_sparsedet_config
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, SparseFusionConv2d
from sparsedet.modeling import VGG, VGGBoxHead

CONFIGS = Path(__file__).parents[2] / "configs"

SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH_MULTIPLIER", 0.125, "MODEL.VGG.DEPTH", 11),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_HEADS.NUM_CLASSES", 3),
    *("INPUT.MIN_SIZE_TEST", 64, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
]


def _config(*opts):
    """A small Faster R-CNN on the VGG base config."""
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "Base-RCNN-VGG-16.yaml"))
    cfg.merge_from_list([*SMALL, *opts])
    return cfg


def _sparse_config(*opts):
    return _config(
        *("MODEL.BACKBONE.NAME", "build_sparse_vgg_backbone"),
        *("MODEL.RPN.HEAD_NAME", "SparseRPNHead", "MODEL.ROI_BOX_HEAD.FC_RANKS", [8, 4]),
        *opts,
    )


def _fpn(*opts):
    features = ["p2", "p3", "p4", "p5", "p6"]
    return _config(
        *("MODEL.BACKBONE.NAME", "build_vgg_fpn_backbone", "MODEL.FPN.OUT_CHANNELS", 16),
        *("MODEL.VGG.OUT_FEATURES", ["conv3", "conv4", "conv5", "pool5"]),
        *("MODEL.FPN.IN_FEATURES", ["conv3", "conv4", "conv5", "pool5"]),
        *("MODEL.RPN.IN_FEATURES", features, "MODEL.ROI_HEADS.IN_FEATURES", features[:4]),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
        *opts,
    )


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


def _losses(model, height=96, width=128):
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 12.0, 80.0, 90.0]]))
    instances.gt_classes = torch.tensor([1])
    with EventStorage():
        return model([{"image": torch.rand(3, height, width) * 255, "instances": instances}])


def test_the_paper_s_detector_and_its_12_4_times_smaller_twin():
    dense = load_config(str(CONFIGS / "VOC-Detection/faster_rcnn_VGG_16.yaml"))
    sparse = load_config(str(CONFIGS / "VOC-Detection/faster_rcnn_VGG_16_sparse.yaml"))
    assert dense.MODEL.ROI_HEADS.NUM_CLASSES + 1 == 21
    counts = []
    for cfg in (dense, sparse):
        cfg.MODEL.DEVICE = "cpu"
        counts.append(_parameters(build_model(cfg)))
    assert counts[0] == 137_057_234
    assert counts[1] <= 11_050_000
    assert counts[0] / counts[1] >= 12.4


@pytest.mark.parametrize("name", ["faster_rcnn_VGG_16.yaml", "faster_rcnn_VGG_16_sparse.yaml"])
def test_coco_configs_are_the_voc_ones_with_coco_s_classes(name):
    coco = load_config(str(CONFIGS / "COCO-Detection" / name))
    voc = load_config(str(CONFIGS / "VOC-Detection" / name))
    assert coco.MODEL.ROI_HEADS.NUM_CLASSES == 80
    assert coco.MODEL.SPARSE_FUSION == voc.MODEL.SPARSE_FUSION
    assert coco.MODEL.BACKBONE == voc.MODEL.BACKBONE
    assert coco.MODEL.RPN == voc.MODEL.RPN


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["", "BN"])
def test_vgg_computes_what_torchvision_s_does(depth, norm):
    torch.manual_seed(0)
    build = getattr(torchvision.models, f"vgg{depth}_bn" if norm else f"vgg{depth}")
    with torch.device("meta"):
        features = build().features
    features = features.to_empty(device="cpu").eval()
    ours = VGG(depth, norm=norm, out_features=["conv5", "pool5"]).eval()
    convs = [m for m in features if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in features if isinstance(m, torch.nn.BatchNorm2d)]
    names = [name for stage in ours.stages for name in stage]
    assert len(convs) == len(names)
    for index, (conv, name) in enumerate(zip(convs, names)):
        mine = getattr(ours, name)
        conv.weight.data.copy_(mine.weight)
        conv.bias.data.zero_()
        if norm:
            norms[index].load_state_dict(mine.norm.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        out = ours(x)
        torch.testing.assert_close(out["pool5"], features(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out["conv5"], features[:-1](x), rtol=1e-4, atol=1e-5)


def test_vgg_features_have_the_declared_strides_and_channels():
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "pool5"]
    vgg = VGG(13, width_multiplier=0.25, out_features=names)
    outputs = vgg(torch.randn(1, 3, 64, 96))
    assert list(outputs) == names
    for name, spec in vgg.output_shape().items():
        assert outputs[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
    assert vgg.output_shape()["conv5"] == ShapeSpec(channels=128, stride=16)


def test_vgg_builds_no_stage_that_is_not_asked_for():
    vgg = VGG(16, out_features=["conv3", "conv4"])
    assert not any(name.startswith("conv5") for name, _ in vgg.named_parameters())
    assert list(vgg.output_shape()) == ["conv3", "conv4"]


@pytest.mark.parametrize("sparse", [False, True])
def test_freeze_at_stops_the_first_stages(sparse):
    name = "build_sparse_vgg_backbone" if sparse else "build_vgg_backbone"
    cfg = _config("MODEL.BACKBONE.NAME", name, "MODEL.VGG.NORM", "BN", "MODEL.VGG.DEPTH", 13)
    backbone = build_backbone(cfg)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (int(name[4]) > 2), name
    assert isinstance(backbone.conv2_1.norm, FrozenBatchNorm2d)
    assert isinstance(backbone.conv3_1.norm, torch.nn.BatchNorm2d)
    assert isinstance(backbone.conv3_2, SparseFusionConv2d) == sparse


@pytest.mark.parametrize("make", [_config, _sparse_config])
def test_every_trainable_parameter_learns(make):
    torch.manual_seed(0)
    model = build_model(make()).train()
    sum(_losses(model).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_sparse_fpn_runs_through_its_replaced_layers():
    torch.manual_seed(0)
    name = "build_sparse_vgg_fpn_backbone"
    backbone = build_backbone(_fpn("MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.FREEZE_AT", 0))
    outputs = backbone(torch.randn(1, 3, 64, 64))
    assert {name: tuple(y.shape) for name, y in outputs.items()} == {
        f"p{level}": (1, 16, 2 ** (6 - level), 2 ** (6 - level)) for level in range(2, 7)
    }
    assert isinstance(backbone.fpn_output2, SparseFusionConv2d)
    sum(y.sum() for y in outputs.values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("fpn", [False, True])
def test_sparse_resnets_keep_norm_and_shape(fpn):
    name = "build_sparse_resnet_fpn_backbone" if fpn else "build_sparse_resnet_backbone"
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.BACKBONE.NAME = name.replace("sparse_", "")
    dense = build_backbone(cfg)
    cfg.MODEL.BACKBONE.NAME = name
    sparse = build_backbone(cfg)
    assert sparse.output_shape() == dense.output_shape()
    assert _parameters(sparse) < _parameters(dense) / 2
    block = (sparse.bottom_up if fpn else sparse).res3[0]
    assert isinstance(block.conv2, SparseFusionConv2d)
    assert isinstance(block.conv2.norm, FrozenBatchNorm2d)
    x = torch.randn(1, 3, 64, 64)
    assert {k: v.shape for k, v in sparse(x).items()} == {k: v.shape for k, v in dense(x).items()}


def test_box_head_low_rank_layers():
    shape = ShapeSpec(channels=8, height=7, width=7)
    head = VGGBoxHead(shape, fc_dim=32, fc_ranks=[8, 4], dropout=0.5).eval()
    assert isinstance(head.fc6, LowRankLinear) and isinstance(head.fc7, LowRankLinear)
    x = torch.randn(5, 8, 7, 7)
    expected = head.fc7.to_dense()(head.fc6.to_dense()(x.flatten(1)).relu()).relu()
    torch.testing.assert_close(head(x), expected)
    assert head.output_shape == ShapeSpec(channels=32)
    assert head(x[:0]).shape == (0, 32)
    with pytest.raises(InputError, match="two ranks, of fc6 and fc7, not \\[8\\]"):
        VGGBoxHead(shape, fc_dim=32, fc_ranks=[8], dropout=0.5)
    with pytest.raises(InputError, match="'fc7': rank must be 1 to 32, not 64"):
        VGGBoxHead(shape, fc_dim=32, fc_ranks=[8, 64], dropout=0.5)


def test_default_predictor_takes_a_sparse_checkpoint(tmp_path):
    torch.manual_seed(0)
    cfg = _sparse_config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    model = build_model(cfg).eval()
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    image = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy()
    predicted = DefaultPredictor(cfg)(image)["instances"]
    with torch.no_grad():
        tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
        expected = model([{"image": tensor, "height": 64, "width": 96}])[0]["instances"]
    assert len(predicted) > 0
    torch.testing.assert_close(predicted.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(predicted.scores, expected.scores)


def test_ratio_include_and_exclude_choose_layers():
    excluded = ["backbone.conv5_*", "proposal_generator.*"]
    model = build_model(_sparse_config("MODEL.SPARSE_FUSION.EXCLUDE", excluded))
    kinds = {n: m for n, m in model.named_modules() if isinstance(m, SparseFusionConv2d)}
    assert "backbone.conv4_2" in kinds
    assert not any(name.startswith(("backbone.conv5", "proposal")) for name in kinds)
    assert kinds["backbone.conv4_2"].ranks == (16, 16)


@pytest.mark.parametrize(
    "plan, message",
    [
        ({"backbone.conv9_9": {"pattern": "rows", "ratio": 4}}, "no such layer"),
        ({"backbon.conv3_1": {"pattern": "rows", "ratio": 4}}, "'backbon.conv3_1' is not under"),
        ({"backbone.conv3_1": {"pattern": "row", "ratio": 4}}, "unknown pattern 'row'"),
        ({"backbone.conv3_1": {"pattern": "rows", "ranks": [4]}}, "takes 2 ranks, not 1"),
        ({"backbone.conv3_1": {"pattern": "rows"}}, "keys must be"),
        ({"backbone.conv3_1": 4}, "must be a mapping"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, message):
    from detectron2.config import CfgNode

    cfg = _sparse_config()
    cfg.MODEL.SPARSE_FUSION.PLAN = CfgNode(plan, new_allowed=True)
    with pytest.raises(InputError, match=message) as caught:
        build_model(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.VGG.DEPTH", 17, "there is no VGG-17; one of 11, 13, 16, 19"),
        ("MODEL.VGG.OUT_FEATURES", ["conv6"], "\\['conv6'\\] must be some of conv1"),
        ("MODEL.SPARSE_FUSION.PATTERN", "hex", "unknown pattern 'hex'"),
        ("MODEL.SPARSE_FUSION.RATIO", 0.0, "ratio must be a positive number"),
        ("MODEL.SPARSE_FUSION.INCLUDE", ["backbone.conv7*"], "no such layer"),
    ],
)
def test_wrong_values_name_the_key(key, value, message):
    with pytest.raises(InputError, match=message):
        build_model(_sparse_config(key, value))
