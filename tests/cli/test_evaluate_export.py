"""tools/evaluate_export.py: an exported file beside the PyTorch model, over a dataset."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sparsedet.detection.config import load_config
from sparsedet.detection.predictor import Predictor
from sparsedet.exporting.compare import Difference
from sparsedet.exporting.evaluate import compare_with_pytorch, largest
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime.detector import Detections
from sparsedet.training.trainer import Trainer

TOOL = Path(__file__).parents[2] / "tools" / "evaluate_export.py"
CLASSES = ["cup", "plate", "spoon"]


@pytest.fixture(scope="module")
def folder(kitchen, picture, tmp_path_factory):
    """The kitchen's detector exported, and images whose truth is near what it finds in them."""
    folder = tmp_path_factory.mktemp("evaluated")
    dataset = {"format": "coco", "json": str(folder / "truth.json"), "images": str(folder)}
    config = {
        "_BASE_": str(kitchen / "config.yaml"),
        "DATASETS": {"TEST": ["found_test"], "REGISTER": {"found_test": dataset}},
        "DATALOADER": {"NUM_WORKERS": 0},
    }
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 80} for i in range(6)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [],
    }
    predictor = Predictor(load_config(str(kitchen / "config.yaml")))
    rng = np.random.default_rng(0)
    for i in range(6):
        image = picture(48, 80, i)
        Image.fromarray(image).save(folder / f"{i}.png")
        found = predictor.detect(image[:, :, ::-1], CLASSES)
        for box, category in zip(found.boxes[1::2], found.classes[1::2]):
            near = box + rng.normal(0, 1, 4)
            x0, y0, x1, y1 = near.clip(0, [80, 48, 80, 48]).tolist()
            annotation = {"image_id": i, "category_id": int(category), "iscrowd": 0}
            width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
            annotation.update(bbox=[x0, y0, width, height], area=width * height)
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, **annotation})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    sizes = {"min_size": 64, "max_size": 128}
    export_graph(predictor.model, str(folder / "model.onnx"), class_names=CLASSES, **sizes)
    others = ["cup", "plate", "fork"]
    export_graph(predictor.model, str(folder / "fork.onnx"), class_names=others, **sizes)
    return folder


def test_one_model_beside_another(folder, tmp_path, monkeypatch, capsys):
    config = str(folder / "config.yaml")
    other = tmp_path / "other.yaml"
    other.write_text(f"_BASE_: {config}\nMODEL: {{ROI_HEADS: {{SCORE_THRESH_TEST: 0.9}}}}")
    arguments = ["--config-file", str(other), "--beside", config, "OUTPUT_DIR", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    heading = next(i for i, line in enumerate(lines) if config in line and str(other) in line)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[heading + 2 :]]
    values = {row[0]: row[1:] for row in rows}
    assert list(values) == [
        *(f"bbox {name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")),
        *("voc mAP", "voc mAP_11pt"),
    ]
    dense, compact = values["bbox AP50"]
    assert float(dense) > float(compact.split()[0])
    assert f"({float(compact.split()[0]) - float(dense):+.2f})" in compact


def test_the_file_is_as_accurate_as_the_model(folder, tmp_path, monkeypatch, capsys):
    arguments = ["--config-file", folder / "config.yaml", "--model", folder / "model.onnx"]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments), "--threads", "1"])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(TOOL), run_name="__main__")
    assert not list(tmp_path.iterdir())
    heading, _, *rows, parity = capsys.readouterr().out.splitlines()
    assert heading.split() == "| found_test | COCO AP | AP50 | VOC mAP |".split()
    values = [[float(cell) for cell in row.split("|")[2:-1]] for row in rows]
    pytorch, exported, difference = np.array(values)
    cfg = load_config(str(folder / "config.yaml"), ["OUTPUT_DIR", str(tmp_path)])
    results = Trainer.test(cfg, Predictor(cfg).model)
    trusted = [results["bbox"]["AP"], results["bbox"]["AP50"], results["voc"]["mAP"]]
    assert pytorch == pytest.approx(trusted, abs=0.01)
    assert (10 < pytorch).all() and (pytorch < 90).all()
    assert np.abs(difference).max() <= 0.1
    assert exported - pytorch == pytest.approx(difference, abs=0.015)
    numbers = r"0.05: (\d+) detections, .* (\S+) pixels, .* (\S+), (\d+) without a counterpart"
    matched, pixels, score, unmatched = map(float, re.search(numbers, parity).groups())
    assert matched > 20 and pixels < 0.5 and score < 0.001 and unmatched == 0


@pytest.mark.parametrize(
    "model, opts, message",
    [
        ("fork.onnx", [], "cup, plate, fork, but those of found_test are cup, plate, spoon"),
        ("gone.onnx", [], "gone.onnx: no such model file"),
        ("model.onnx", ["DATASETS.TEST", "()"], "DATASETS.TEST is empty"),
        ("model.onnx", ["DATASETS.TEST", "('coco_2017_val',)"], "coco_2017_val"),
        ("model.onnx", ["MODEL.WEIGHTS", "gone.pth"], "gone.pth: no such checkpoint"),
        ("model.onnx", ["DATASETS.REGISTER.found_test.images", "gone"], "gone: no such image"),
        ("model.onnx", ["DATASETS.REGISTER.found_test.json", "{bare}"], "has no annotations"),
        ("model.onnx", ["DATASETS.REGISTER.found_test.images", "{empty}"], "0.png: no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_named(folder, tmp_path, run_tool, model, opts, message):
    truth = json.loads((folder / "truth.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps({**truth, "annotations": []}))
    opts = [opt.format(bare=tmp_path / "bare.json", empty=tmp_path) for opt in opts]
    config = ["--config-file", folder / "config.yaml"]
    status, lines = run_tool(TOOL.name, *config, "--model", folder / model, *opts)
    assert status == 1 and not any("Traceback" in line for line in lines)
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert message in error


def test_rounding_at_the_threshold_and_at_the_limit_is_no_difference(kitchen):
    cfg = load_config(str(kitchen / "config.yaml"), ["TEST.DETECTIONS_PER_IMAGE", "3"])
    boxes = np.float32([[0, 0, 9, 9], [20, 20, 30, 30], [50, 50, 60, 60]])

    def detections(*scores):
        count = len(scores)
        return Detections(boxes[:count], np.float32(scores), np.arange(count), CLASSES[:count])

    expected = detections(0.9, 0.0505)
    assert compare_with_pytorch(cfg, expected, detections(0.9)) == Difference(1, 0, 0, 0)
    assert compare_with_pytorch(cfg, detections(0.9, 0.052), detections(0.9)).unmatched == 1
    assert compare_with_pytorch(cfg, expected, detections(0.9), 0.5) == Difference(1, 0, 0, 0)
    full = detections(0.9, 0.8, 0.7)
    assert compare_with_pytorch(cfg, full, detections(0.9, 0.8)).unmatched == 0
    assert compare_with_pytorch(cfg, full, detections(0.9)).unmatched == 1


def test_the_largest_difference_of_several_images():
    apart = [Difference(3, 1, 0.25, 0.0), Difference(2, 0, 0.125, 0.5)]
    assert largest(apart) == Difference(5, 1, 0.25, 0.5)


def test_nothing_compared_is_not_called_equal():
    assert str(Difference(0, 0, 0.0, 0.0)) == ("neither detects anything, so nothing was compared")
    assert str(Difference(0, 1, 0.0, 0.0)).endswith("1 without a counterpart")
