"""The recipes of 0.1.0, word for word: they still run, and say what to use."""

import pytest
import torch
from torch import nn

from sparsedet.compress import layer_times
from sparsedet.layers import SparseFusionConv2d

GENERAL = """
from sparsedet.compress import plan_for_targets, profile_layers, sparsify_calibrated_
plan = plan_for_targets(profile_layers(model, batches), {"params": 4, "flops": 3})
report = sparsify_calibrated_(model, plan, batches)
"""
DETECTOR = """
from sparsedet import load_config
from sparsedet.compress import sparsify_calibrated_
from sparsedet.engine.calibration import load_images, run_detector
from sparsedet.engine.compression import answer_metrics, load_model, plan_compression, predictors

cfg = load_config(f"{folder}/config.yaml", ["MODEL.WEIGHTS", f"{folder}/model.pth"])
model = load_model(cfg)
images = load_images(cfg, photos, 50)
metrics = answer_metrics(model, images)
plan = plan_compression(model, images, metrics, {"params": 2, "flops": 1.5})
report = sparsify_calibrated_(model, plan, images, run_detector, metrics, predictors(model))
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times, "SECONDS", 0)


def test_the_recipe_for_any_module():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    scope = {"model": model, "batches": [torch.rand(4, 3, 32, 32) for _ in range(4)]}
    with pytest.warns(DeprecationWarning, match="use sparsedet.compress_"):
        exec(GENERAL, scope)
    assert type(model[2]) is SparseFusionConv2d and scope["report"].layers


def test_the_recipe_for_a_detector(kitchen, tmp_path, picture):
    from PIL import Image

    for seed in range(3):
        Image.fromarray(picture(64, 96, seed)).save(tmp_path / f"{seed}.png")
    scope = {"folder": kitchen, "photos": str(tmp_path)}
    with pytest.warns(DeprecationWarning) as warned:
        exec(DETECTOR, scope)
    assert any(type(m) is SparseFusionConv2d for m in scope["model"].modules())
    text = " ".join(str(w.message) for w in warned)
    assert "use sparsedet.load_model" in text and "use sparsedet.DetectionTask" in text


@pytest.mark.parametrize(
    "old, new",
    [
        ("from sparsedet.engine import Predictor", "sparsedet.Predictor"),
        ("from sparsedet.deploy import Detector", "sparsedet.Detector"),
        ("from sparsedet.engine.optimize import optimize_for_inference", "sparsedet.optimize"),
    ],
)
def test_moved_names(old, new):
    with pytest.warns(DeprecationWarning, match=f"goes in the next release: use {new}"):
        exec(old, {})
    with pytest.raises(ImportError):
        exec("from sparsedet.engine import nothing", {})
