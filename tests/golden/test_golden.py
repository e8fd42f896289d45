"""What the program computes is what it computed before, and files that it wrote then still load."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from golden import values

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.compress import resolve_plan
from sparsedet.detection.config import load_config

FILES = Path(__file__).parent / "files"
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture(scope="module")
def compression(tmp_path_factory):
    return values.compression_values(tmp_path_factory.mktemp("golden"))


def approx(expected, rel=1e-4, abs=1e-6):
    """Like pytest's, in nested dicts and lists, for the numbers that are not integers."""
    if isinstance(expected, dict):
        return {key: approx(value, rel, abs) for key, value in expected.items()}
    if isinstance(expected, list):
        return [approx(value, rel, abs) for value in expected]
    return pytest.approx(expected, rel, abs) if isinstance(expected, float) else expected


def test_the_plan_is_the_same(compression):
    assert compression["plan"] == approx(GOLDEN["compression"]["plan"], rel=0.01)


def test_the_calibrated_weights_are_the_same(compression):
    # A solver's rounding is amplified where samples are few.
    assert compression["weights"] == approx(GOLDEN["compression"]["weights"], rel=1e-3, abs=0.02)
    # Bit for bit where sums are rounded as they were when the values were made.
    if values.processor() == GOLDEN["processor"]:
        assert compression["digest"] == GOLDEN["compression"]["digest"]


def test_the_report_is_the_same(compression):
    assert compression["report"] == approx(GOLDEN["compression"]["report"], rel=1e-3)


def test_a_checkpoint_holds_the_same_keys(compression):
    assert compression["checkpoint"] == GOLDEN["compression"]["checkpoint"]


def test_an_exported_file_finds_the_same(compression):
    assert compression["exported"] == approx(GOLDEN["compression"]["exported"], abs=1e-3)


def test_configs_build_models_of_the_same_size():
    assert values.config_values() == GOLDEN["configs"]


def test_a_config_and_a_checkpoint_of_before_load():
    cfg = load_config(str(FILES / "config.yaml"), ["MODEL.WEIGHTS", str(FILES / "model.pth")])
    model = build_model(cfg)
    SparseDetCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS)
    assert values.sums(model.state_dict()) == approx(GOLDEN["compression"]["weights"])


def test_a_plan_of_before_applies(tmp_path):
    cfg = load_config(str(values.dense_config_file(tmp_path)))
    entries = yaml.safe_load((FILES / "plan.yaml").read_text())
    plan = resolve_plan(build_model(cfg), entries)
    assert {name: list(entry.ranks) for name, entry in plan.items()} == {
        name: entry.get("ranks") or [entry["rank"]]
        for name, entry in GOLDEN["compression"]["plan"].items()
    }


def test_an_exported_file_of_before_runs(tmp_path):
    values.write_pictures(tmp_path)
    found = values.exported_values(str(FILES / "model.onnx"), tmp_path)
    assert found == approx(GOLDEN["compression"]["exported"], abs=1e-3)


def test_the_golden_file_holds_finite_numbers():
    found = GOLDEN["compression"]["exported"][0]
    assert found["count"] > 5 and torch.tensor(found["boxes"]).isfinite().all()
