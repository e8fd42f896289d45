"""The detectors that tools/benchmark.py times for comparison."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsedet.benchmark.cases import detect
from sparsedet.benchmark.models import Setting, build_detector, multiply_adds
from sparsedet.benchmark.stages import STAGES, time_stages
from sparsedet.benchmark.torchvision_models import NAMES
from sparsedet.errors import InputError
from sparsedet.exporting.optimize import optimize_for_inference

SETTING = Setting(height=64, width=96, proposals=6, batch=2, threads=1)


def _layer_multiply_adds(model, call):
    """Those of the convolutions and linear layers in one call."""
    counts = []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(
                lambda layer, args, output: counts.append(output.numel() * layer.weight[0].numel())
            )
    call()
    return sum(counts)


@pytest.mark.parametrize("name", ["C4", "FPN"])
@torch.no_grad()
def test_model_zoo(name):
    model = build_detector(f"COCO-Detection/faster_rcnn_R_50_{name}_1x.yaml", "", SETTING)
    model.roi_heads.box_predictor.test_score_thresh = 0.0  # random weights are sure of nothing
    images = SETTING.images()
    optimized = optimize_for_inference(model)
    for expected, found in zip(detect(model, images), detect(optimized, images)):
        expected, found = expected["instances"], found["instances"]
        assert len(expected) == len(found) > 0
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)
    for runnable in (model, optimized):
        times = time_stages(runnable, lambda: detect(runnable, images))  # noqa: B023
        assert tuple(times) == STAGES and min(times.values()) > 0
    count = multiply_adds(model, SETTING)
    expected = _layer_multiply_adds(model, lambda: detect(model, images[:1]))
    assert count == expected


@pytest.mark.parametrize("name, size", list(zip(NAMES, [(64, 96), (320, 480)])))
@torch.no_grad()
def test_torchvision(name, size):
    model = build_detector(f"torchvision:{name}", None, SETTING)
    sizes, proposals = [], []
    model.model.backbone.register_forward_pre_hook(
        lambda module, args: sizes.append(tuple(args[0].shape[2:]))
    )
    model.model.roi_heads.box_roi_pool.register_forward_pre_hook(
        lambda module, args: proposals.extend(len(boxes) for boxes in args[1])
    )
    assert len(detect(model, SETTING.images())) == 2
    assert sizes == [size] and proposals == [6, 6]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    count = multiply_adds(model, SETTING)
    expected = _layer_multiply_adds(model, lambda: detect(model, SETTING.images()[:1]))
    assert count == expected


def test_colours_are_as_torchvision_reads_them():
    model = build_detector(f"torchvision:{NAMES[0]}", "", SETTING)
    seen = []
    model.model.transform.register_forward_pre_hook(lambda module, args: seen.extend(args[0]))
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :, 2] = 255  # red, in BGR
    detect(model, [image])
    assert seen[0][:, 0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "config, weights, message",
    [
        ("torchvision:resnet18", None, "torchvision:resnet18: not a detector to time; one of"),
        (f"torchvision:{NAMES[0]}", "a.pth", "--weights a.pth: it is timed with random ones"),
        ("COCO-Detection/none.yaml", "", "COCO-Detection/none.yaml: no such config file"),
    ],
)
def test_what_is_not_there(config, weights, message):
    with pytest.raises(InputError, match=message):
        build_detector(config, weights, SETTING)


def test_torchvision_is_eager_alone(run_tool):
    config = f"torchvision:{NAMES[0]}"
    status, lines = run_tool(
        "benchmark.py", "--config-file", config, "--engine", "eager", "optimized"
    )
    assert status == 1 and lines[-1] == f"error: {config}: only --engine eager runs it"
