"""optimize_for_inference: the same detections, step by step."""

import copy
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from torch import nn

from sparsedet import add_sparsedet_config, compat
from sparsedet.exporting import optimize
from sparsedet.exporting.optimize import (
    fold_batch_norms_,
    fuse_convolutions_,
    optimize_for_inference,
)
from sparsedet.kernels import PATTERNS, sparse_kernels
from sparsedet.layers import SparseFusionConv2d

CONFIGS = Path(__file__).parents[2] / "configs"


def _config(*opts):
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "Base-RCNN-VGG-16.yaml"))
    small = [
        *("MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH_MULTIPLIER", 0.125, "MODEL.VGG.DEPTH", 11),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_HEADS.NUM_CLASSES", 3),
        *("MODEL.RPN.POST_NMS_TOPK_TEST", 20, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
        *("MODEL.PIXEL_STD", [60.0, 60.0, 60.0], "MODEL.VGG.NORM", "BN"),
    ]
    cfg.merge_from_list([*small, *opts])
    return cfg


def _sparse(*opts):
    return _config(
        *("MODEL.BACKBONE.NAME", "build_sparse_vgg_backbone"),
        *("MODEL.RPN.HEAD_NAME", "SparseRPNHead", "MODEL.ROI_BOX_HEAD.FC_RANKS", [8, 4]),
        *opts,
    )


def _fpn(*opts):
    features, stages = ["p2", "p3", "p4", "p5", "p6"], ["res2", "res3", "res4", "res5"]
    return _config(
        *("MODEL.BACKBONE.NAME", "build_sparse_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH", 18),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.OUT_FEATURES", stages),
        *("MODEL.FPN.IN_FEATURES", stages, "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.FPN.NORM", "BN"),
        *("MODEL.RPN.IN_FEATURES", features, "MODEL.ROI_HEADS.IN_FEATURES", features[:4]),
        *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
        *opts,
    )


def _resnet_c4(*opts):
    return _config(
        *("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 18),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
        *("MODEL.RPN.IN_FEATURES", ["res4"], "MODEL.ROI_HEADS.IN_FEATURES", ["res4"]),
        *opts,
    )


KINDS = {"vgg": _config, "sparse vgg": _sparse, "sparse fpn": _fpn, "resnet c4": _resnet_c4}


def _randomize_norms(model):
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high)
    return model


def _model(kind, *opts):
    torch.manual_seed(0)
    return _randomize_norms(build_model(KINDS[kind](*opts))).eval()


def _inputs(height=96, width=131, count=1):
    torch.manual_seed(1)
    return [{"image": torch.rand(3, height, width) * 255} for _ in range(count)]


def _detections(model, inputs):
    with torch.no_grad():
        return [output["instances"] for output in model(inputs)]


def _assert_same(found, expected):
    for a, b in zip(found, expected):
        assert len(b) > 0
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=0.02)
        assert torch.equal(a.pred_classes, b.pred_classes)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_folds_exactly(kind):
    torch.manual_seed(0)
    backbone = _randomize_norms(build_backbone(KINDS[kind]())).double().eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.double)
    with torch.no_grad():
        expected = backbone(x)
        fold_batch_norms_(backbone)
        found = backbone(x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)
    norms = (nn.BatchNorm2d, FrozenBatchNorm2d)
    assert not any(isinstance(m, norms) for m in backbone.modules())


def test_norms_that_do_not_fold_stay():
    for norm in (nn.GroupNorm(2, 8), nn.BatchNorm2d(8, track_running_stats=False)):
        layer = Conv2d(3, 8, 3, norm=norm, activation=F.relu).eval()
        x = torch.randn(2, 3, 9, 9)
        _assert_close(optimize_for_inference(nn.Sequential(layer))(x), layer(x))


def _assert_close(found, expected):
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_the_same(kind):
    model = _model(kind)
    inputs = _inputs(count=2) + _inputs(70, 90)
    before = copy.deepcopy(model.state_dict())
    expected = _detections(model.train().eval(), inputs)
    fast = optimize_for_inference(model.train())
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert any(p.requires_grad for p in model.parameters())
    assert not fast.training and not any(p.requires_grad for p in fast.parameters())
    _assert_same(_detections(fast, inputs), expected)
    _assert_same(_detections(fast, inputs[::-1]), expected[::-1])
    assert fast.preprocess_image(inputs).tensor.shape[0] == 3
    raw = fast.inference(inputs, do_postprocess=False)
    assert [len(r) for r in raw] == [len(e) for e in expected]


def test_an_odd_sweep_of_sparse_fusions():
    torch.manual_seed(0)
    generator = random.Random(0)
    for _ in range(60):
        pattern = generator.choice(list(PATTERNS))
        kernel_size = generator.randint(2, 5), generator.randint(2, 5)
        groups = generator.choice([1, 1, 1, 2])
        ranks = [groups * generator.randint(1, 9) for _ in sparse_kernels(pattern, kernel_size)]
        layer = SparseFusionConv2d(
            groups * 3,
            groups * 5,
            kernel_size,
            stride=(generator.randint(1, 3), generator.randint(1, 3)),
            padding=(generator.randint(0, 4), generator.randint(0, 4)),
            dilation=(generator.randint(1, 3), generator.randint(1, 3)),
            groups=groups,
            bias=generator.random() < 0.5,
            pattern=pattern,
            ranks=ranks,
            activation=generator.choice([None, F.relu, nn.ReLU(), torch.sigmoid]),
        )
        x = torch.randn(generator.randint(0, 2), groups * 3, 17, 19)
        model = nn.Sequential(layer).requires_grad_(False)
        expected = model(x)
        fuse_convolutions_(model)
        _assert_close(model(x), expected)


def test_weights_are_packed_once_for_each_size(monkeypatch):
    pack, sizes = compat.pack_convolution, []

    def counted(weight, geometry, size):
        sizes.append(tuple(size))
        return pack(weight, geometry, size)

    monkeypatch.setattr(compat, "pack_convolution", counted)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)).requires_grad_(False)
    dense = copy.deepcopy(model)
    fuse_convolutions_(model)
    images = [torch.randn(1, 8, side, side + 9) for side in range(2, 2 + 2 * optimize.SIZES)]
    for i, x in enumerate([*images, *images[-optimize.SIZES :], *images[: -optimize.SIZES]]):
        with torch.inference_mode(i < len(images)):  # what is packed there serves elsewhere, too
            _assert_close(model(x), dense(x))
    seen = [tuple(x.shape) for x in images]
    assert sizes == [*seen, *seen[: -optimize.SIZES]]  # the last few are kept


@pytest.mark.parametrize("features", [["conv5"], ["conv2", "conv4"], ["conv1", "pool5"], ["conv3"]])
@pytest.mark.parametrize("height, width, count", [(64, 64, 1), (117, 75, 1), (83, 40, 2)])
def test_bands_join_without_a_seam(features, height, width, count, monkeypatch):
    monkeypatch.setattr(optimize, "BAND_BYTES", 1)  # so that bands are as narrow as they get
    torch.manual_seed(0)
    name = "MODEL.BACKBONE.NAME", "build_sparse_vgg_backbone", "MODEL.VGG.DEPTH", 13
    backbone = build_backbone(_config(*name, "MODEL.VGG.OUT_FEATURES", features)).eval()
    x = torch.randn(count, 3, height, width)
    with torch.no_grad():
        found, expected = optimize_for_inference(backbone)(x), backbone(x)
    assert list(found) == list(expected)
    for name in expected:
        _assert_close(found[name], expected[name])


@pytest.mark.parametrize("wanted, threshold", [(5, 0.7), (20, 0.7), (30, 0.2), (200, 0.05)])
def test_fewer_candidates_leave_the_same_proposals(wanted, threshold):
    opts = ["MODEL.RPN.POST_NMS_TOPK_TEST", wanted, "MODEL.RPN.NMS_THRESH", threshold]
    model = _model("vgg", *opts)
    fast = optimize_for_inference(model)
    assert type(fast.proposal_generator) is not type(model.proposal_generator)
    images = model.preprocess_image(_inputs(160, 224, count=2))
    with torch.no_grad():
        features = model.backbone(images.tensor)
        expected, found = (m.proposal_generator(images, features)[0] for m in (model, fast))
    for a, b in zip(found, expected):
        assert len(b) > 0
        torch.testing.assert_close(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
        torch.testing.assert_close(a.objectness_logits, b.objectness_logits)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_float32_detections_nearby(kind):
    model = _model(kind)
    fast = optimize_for_inference(model, torch.bfloat16)
    x = model.preprocess_image(_inputs()).tensor
    with torch.no_grad():
        expected, found = model.backbone(x), fast.backbone(x)
    for name in expected:
        assert found[name].dtype == torch.float32
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert 0 < error < 0.05
    (detections,) = _detections(fast, _inputs())
    assert detections.scores.dtype == detections.pred_boxes.tensor.dtype == torch.float32
