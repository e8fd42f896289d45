"""tools/research/compare_widths.py: pairs of layers at equal cost, and what it refuses."""

import importlib.util
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from sparsedet.compress import Task
from sparsedet.compress.links import find_links
from sparsedet.compress.plan import compact_weights
from sparsedet.compress.profile import profile_layers
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Base-RCNN-VGG-16.yaml
MODEL:
  DEVICE: cpu
  VGG: {{DEPTH: 11, WIDTH_MULTIPLIER: 0.125, OUT_FEATURES: [conv3]}}
  RPN: {{IN_FEATURES: [conv3], POST_NMS_TOPK_TEST: 10}}
  ROI_HEADS: {{IN_FEATURES: [conv3], NUM_CLASSES: 3}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
INPUT: {{MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}}
"""


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "research" / "compare_widths.py"
    spec = importlib.util.spec_from_file_location("compare_widths", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("widths")
    (folder / "dense.yaml").write_text(CONFIG)
    generate_shapes(str(folder / "shapes"), num_train=6, num_test=1, image_size=(96, 64))
    torch.manual_seed(0)
    model = build_model(load_config(str(folder / "dense.yaml")))
    torch.save({"model": model.state_dict()}, folder / "dense.pth")
    return folder


def test_a_pair_costs_what_was_asked_for(tool, folder):
    trunk = build_model(load_config(str(folder / "dense.yaml"))).backbone.eval()
    task = Task([torch.randn(1, 3, 32, 32) for _ in range(2)])
    links, _ = find_links(trunk, task)
    profile = profile_layers(trunk, task, links=links)
    assert set(profile.widths) == {"conv1_1", "conv2_1", "conv3_1"}
    plans = tool.pair_plans(profile, "conv2_1", 3)
    assert not any(entry.out_channels or entry.in_channels for entry in plans[0].values())
    pair = {name: trunk.get_submodule(name) for name in ("conv2_1", "conv3_1")}
    outputs = {name: profile.layers[name].outputs for name in pair}
    dense = sum(outputs[name] * layer.weight.numel() for name, layer in pair.items())
    for plan in plans:
        work = sum(
            outputs[name]
            * (compact_weights(layer, plan[name]) if name in plan else layer.weight.numel())
            for name, layer in pair.items()
        )
        assert 3 <= dense / work < 5


def test_the_tool(run_tool, folder):
    arguments = ["--config-file", folder / "dense.yaml", "--weights", folder / "dense.pth"]
    arguments += ["--images", folder / "shapes" / "JPEGImages", "--num-images", 4, "--ratio", 2]
    status, _ = run_tool("research/compare_widths.py", *arguments, "--output", folder / "table.md")
    assert status == 0
    rows = (folder / "table.md").read_text().splitlines()[2:5]
    assert [row.split("|")[1].strip() for row in rows] == ["conv1_1", "conv2_1", "conv3_1"]
    assert all(0 <= float(row.split("|")[i]) < 1 for row in rows for i in (4, 6))
