"""tools/research/compare_patterns.py: equal cost, errors on unseen images, and what it refuses."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from sparsedet.compress import LayerPlan, layer_times
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.plan import compact_weights
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.detection.images import load_images
from sparsedet.detection.task import DetectionTask
from sparsedet.kernels import PATTERNS, sparse_kernels

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Base-RCNN-VGG-16.yaml
MODEL:
  DEVICE: cpu
  VGG: {{DEPTH: 11, WIDTH_MULTIPLIER: 0.125, OUT_FEATURES: [conv4]}}
  RPN: {{IN_FEATURES: [conv4], POST_NMS_TOPK_TEST: 10}}
  ROI_HEADS: {{IN_FEATURES: [conv4], NUM_CLASSES: 3}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
INPUT: {{MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}}
"""
LAYER = "backbone.conv4_1"


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "research" / "compare_patterns.py"
    spec = importlib.util.spec_from_file_location("compare_patterns", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patterns")
    (folder / "dense.yaml").write_text(CONFIG)
    generate_shapes(str(folder / "shapes"), num_train=8, num_test=1, image_size=(96, 64))
    torch.manual_seed(0)
    model = build_model(load_config(str(folder / "dense.yaml")))
    torch.save({"model": model.state_dict()}, folder / "dense.pth")
    return folder


@pytest.fixture
def model(folder):
    torch.manual_seed(0)
    return build_model(load_config(str(folder / "dense.yaml"))).eval()


@pytest.fixture
def images(folder):
    return load_images(
        load_config(str(folder / "dense.yaml")), str(folder / "shapes" / "JPEGImages"), 8
    )


def halves(images):
    return DetectionTask(images[:4]), DetectionTask(images[4:])


def test_all_patterns_cost_the_same(tool, model):
    plans = tool.plans_of_equal_cost(model, 4.0, ["*"])
    assert set(plans) == {
        *(f"backbone.conv{i}" for i in ("1_1", "2_1", "3_1", "3_2", "4_1", "4_2")),
        "proposal_generator.rpn_head.conv",
    }
    for name, choices in plans.items():
        conv = model.get_submodule(name)
        assert [plan.pattern for plan in choices] == list(PATTERNS)
        rank = conv.out_channels // 4
        assert choices[0] == LayerPlan((rank, rank), "rows")
        budget = rank * (9 * conv.in_channels + 2 * conv.out_channels)
        for plan in choices:
            assert len(set(plan.ranks)) == 1
            assert compact_weights(conv, plan) <= budget
            more = LayerPlan(tuple(r + 1 for r in plan.ranks), plan.pattern)
            assert compact_weights(conv, more) > budget


def _full_ranks(conv):
    return [
        LayerPlan((conv.out_channels,) * len(sparse_kernels(pattern, conv.kernel_size)), pattern)
        for pattern in PATTERNS
    ]


def test_full_rank_has_no_error_where_the_kernels_cover_the_window(tool, model, images):
    plans = {LAYER: _full_ranks(model.get_submodule(LAYER))}
    errors = dict(zip(PATTERNS, tool.measure_errors(model, plans, *halves(images))[LAYER]))
    cross = errors.pop("cross")
    assert max(errors.values()) < 1e-6 < 1e-3 < cross < 1


def test_errors_are_those_of_the_calibrated_layer_on_the_other_images(tool, model, images):
    plans = tool.plans_of_equal_cost(model, 4.0, [LAYER])[LAYER]
    errors = tool.measure_errors(model, {LAYER: plans}, *halves(images))[LAYER]
    dense = model.get_submodule(LAYER)
    calls = []
    handle = dense.register_forward_hook(lambda _, x, y: calls.append((x[0], y)))
    for image in images[4:]:
        model(image)
    handle.remove()
    assert len(calls) == 4 and min(y.min().item() for _, y in calls) == 0  # after its ReLU
    for plan, error in zip(plans, errors):
        compact = copy.deepcopy(model)
        calibrate_(compact, {LAYER: plan}, DetectionTask(images[:4]))
        twin = compact.get_submodule(LAYER)
        wrong = sum((twin(x) - y).square().sum().item() for x, y in calls)
        whole = sum(y.square().sum().item() for _, y in calls)
        assert error == pytest.approx(wrong / whole, 1e-4)


def test_the_tables(run_tool, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(layer_times, "SECONDS", 0)
    arguments = ["--config-file", folder / "dense.yaml", "--weights", folder / "dense.pth"]
    arguments += ["--images", folder / "shapes" / "JPEGImages", "--num-images", 4]
    output = tmp_path / "patterns.md"
    layers = ["--layers", "backbone.conv4_*"]
    status, lines = run_tool(
        "research/compare_patterns.py", *arguments, *layers, "--output", output
    )
    assert status == 0, lines
    text = output.read_text()
    assert "calibrated on 2 images and measured on 2 others" in text
    titles = text.split("**")[1::2]
    assert titles == ["Error", "Milliseconds", "Weights"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and "backbone" in line
    ]
    assert [row[0] for row in rows] == ["backbone.conv4_1", "backbone.conv4_2"] * 3
    for row in rows:
        assert row[-1] in PATTERNS
        assert row[-2] == row[2 + list(PATTERNS).index(row[-1])]
    for row in rows[:2]:
        assert float(row[-2]) == min(map(float, row[2:8]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--layers", "backbone.conv9_1"], "the model has no such layer"),
        (["--layers", "roi_heads*"], "no such layer"),
        (["--ratio", "1"], "no dense convolution wider than 1x1 that --ratio 1 makes smaller"),
        (["--ratio", "64", "--layers", LAYER], "--ratio 64 leaves no rank for quad"),
        (["--weights", "no.pth"], "no.pth: no such checkpoint"),
        (["--images", "nowhere"], "nowhere: no such file or folder"),
        (["--images", "{image}"], "one image is not enough"),
    ],
)
def test_bad_arguments_end_in_one_line(run_tool, folder, arguments, message):
    image = next((folder / "shapes" / "JPEGImages").iterdir())
    given = ["--config-file", folder / "dense.yaml", "--weights", folder / "dense.pth"]
    given += ["--images", folder / "shapes" / "JPEGImages"]
    given += [argument.format(image=image) for argument in arguments]
    status, lines = run_tool("research/compare_patterns.py", *given)
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and message in errors[0], lines
    assert not any("Traceback" in line for line in lines)
