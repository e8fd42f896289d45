"""tools/benchmark.py: rows, ratios and pictures of small detectors, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from sparsedet.detection.config import load_config

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
_BASE_: {root}/configs/Base-RCNN-VGG-16.yaml
MODEL:
  BACKBONE: {{NAME: {backbone}}}
  VGG: {{DEPTH: 11, WIDTH_MULTIPLIER: 0.125}}
  ROI_HEADS: {{NUM_CLASSES: 3}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
"""
SIZE = ["--size", "64x96", "--proposals", 20, "--threads", 1, "--rounds", 2]


@pytest.fixture
def configs(tmp_path):
    paths = []
    for name in ("dense", "sparse"):
        prefix = "build_sparse" if name == "sparse" else "build"
        path = tmp_path / f"{name}.yaml"
        path.write_text(CONFIG.format(root=ROOT, backbone=f"{prefix}_vgg_backbone"))
        paths.append(path)
    return paths


@pytest.fixture
def weights(configs, tmp_path):
    model = build_model(load_config(str(configs[0])))
    torch.save({"model": model.state_dict()}, tmp_path / "dense.pth")
    return tmp_path / "dense.pth"


def _benchmark(run_tool, configs, *arguments):
    return run_tool("benchmark.py", "--config-file", *configs, *SIZE, *arguments)


def test_dense_and_sparse_in_two_engines(run_tool, configs, weights, tmp_path, capfd):
    out, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    engines = ["--engine", "eager", "optimized", "--batch", 2]
    files = ["--json", out, "--plot", picture, "--against", "first", "--weights", weights]
    status, lines = _benchmark(run_tool, configs, *engines, *files)
    assert status == 0, lines
    rows = json.loads(out.read_text())
    assert [(row["config"], row["engine"]) for row in rows] == [
        (str(config), engine) for config in configs for engine in ("eager", "optimized")
    ]
    for row in rows:
        assert (row["height"], row["width"], row["proposals"]) == (64, 96, 20)
        assert (row["batch"], row["threads"], row["precision"]) == (2, 1, "f32")
        assert 0 < row["ms_p10"] <= row["ms_median"] <= row["ms_p90"]
        assert 4 * row["params"] <= row["file_bytes"] < 4.1 * row["params"]
        assert 100 < row["peak_rss_mb"] < 2000
        assert min(row["stages"]["backbone"].values()) > 0  # on a busy machine in either order
    assert rows[0]["multiply_adds"] == rows[1]["multiply_adds"] > rows[2]["multiply_adds"]
    assert Image.open(picture).size[0] == 1200


def test_cost_over_proposals(run_tool, configs, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    out, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    more = ["--engine", "onnxruntime", "--proposals", 5, 20, "--json", out, "--plot", picture]
    status, lines = _benchmark(run_tool, configs[1:], *more)
    assert status == 0, lines
    few, many = json.loads(out.read_text())
    assert (few["proposals"], many["proposals"]) == (5, 20)
    assert few["multiply_adds"] < many["multiply_adds"] and few["params"] == many["params"]
    assert Image.open(picture).size[0] == 1200


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime:int8", "openvino:bf16"])
def test_exported_engines(engine, run_tool, configs, tmp_path):
    pytest.importorskip(engine.partition(":")[0])
    pytest.importorskip("onnx")
    out = tmp_path / "rows.json"
    status, lines = _benchmark(run_tool, configs[1:], "--engine", engine, "--json", out)
    if lines[-1].endswith("this processor does not compute in bf16"):
        assert status == 1 and engine == "openvino:bf16"
        return
    assert status == 0, lines
    (row,) = json.loads(out.read_text())
    assert row["engine"] == engine.partition(":")[0] and row["stages"] == {}
    assert row["load_ms"] > 0
    assert row["params"] < row["file_bytes"] < 4 * row["params"] + 400_000
    assert row["precision"] == (engine.partition(":")[2] or "f32")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--engine", "tensorrt"], "there is no such engine; one of eager, optimized"),
        (["--engine", "eager:int8"], "eager has no such precision; one of f32"),
        (["--engine", "onnxruntime:bf16"], "onnxruntime has no such precision; one of f32, f16"),
        (["--batch", 1, 2, "--threads", 1, 2], "--batch, --threads: only one of them can have"),
        (["--weights", "no.pth"], "no.pth: no such checkpoint"),
        (["--weights", "a.pth", "b.pth", "c.pth"], "3 --weights for 2 --config-file"),
        (["--against", "other.yaml"], "other.yaml: not one of the configs"),
        (["--json", "nowhere/rows.json"], "nowhere/rows.json: no such folder"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message, run_tool, configs):
    status, lines = _benchmark(run_tool, configs, *arguments)
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and message in errors[0], lines
    assert not any("Traceback" in line for line in lines)


def test_files_that_do_not_fit(run_tool, configs, weights, tmp_path):
    status, lines = _benchmark(run_tool, [tmp_path / "none.yaml"])
    assert status == 1 and lines[-1].endswith("none.yaml: no such config file")
    status, lines = _benchmark(run_tool, configs[1:], "--weights", weights)
    assert status == 1 and "of another architecture than the config" in lines[-1]
    retina = tmp_path / "retina.yaml"
    retina.write_text("MODEL: {META_ARCHITECTURE: RetinaNet, BACKBONE: {NAME: "
                      "build_retinanet_resnet_fpn_backbone}, RESNETS: {OUT_FEATURES: "
                      "[res3, res4, res5]}, FPN: {IN_FEATURES: [res3, res4, res5]}}\n")  # fmt: skip
    status, lines = _benchmark(run_tool, [retina])
    assert status == 1 and "not a detector with a proposal generator" in lines[-1]


def test_an_engine_that_is_not_installed(run_tool, configs, monkeypatch):
    import importlib.metadata

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    status, lines = _benchmark(run_tool, configs, "--engine", "openvino")
    assert status == 1 and lines[-1].endswith("not installed; pip install openvino")
