"""What several test files share."""

import logging
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger
from PIL import Image

from sparsedet.compress import layer_times
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.detection.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def few_rounds():
    """A layer is timed a few times, not for a while: no test looks at how long it takes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_times, "SECONDS", 0)
        yield


@pytest.fixture
def run_tool(monkeypatch, capfd):
    """Run a tool of this project in this process: its exit status, and its lines on stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        finally:
            # They would go on writing to this test's stdout when it is closed.
            setup_logger.cache_clear()
            for logger in map(logging.getLogger, ("detectron2", "fvcore", "sparsedet")):
                logger.handlers.clear()
                logger.propagate = True
        output, errors = capfd.readouterr()
        assert "Traceback" not in output
        return status, errors.splitlines()

    return run


@pytest.fixture(scope="session")
def picture():
    """Make smooth colours, (height, width, 3) uint8."""

    def make(height, width, seed=0):
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    return make


@pytest.fixture
def photos(tmp_path, picture):
    """A folder of six pictures, 96 x 64."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(picture(64, 96, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder for DETECTRON2_DATASETS with a small demo set: 7 pictures to train, 2 to test."""
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=7, num_test=2, image_size=(128, 96))
    return folder


@pytest.fixture
def write_config(tmp_path, shapes, monkeypatch):
    """Write a config that trains on :func:`shapes`; its path."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))

    def write(text, name="small.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory):
    """Folder with config.yaml and model.pth of a small detector with random, confident weights."""
    folder = tmp_path_factory.mktemp("kitchen")
    classes = ["cup", "plate", "spoon"]
    dataset = {"format": "voc", "root": "nowhere", "split": "test", "classes": classes}
    config = {
        "_BASE_": str(ROOT / "configs" / "Base-RCNN-VGG-16.yaml"),
        "MODEL": {
            "DEVICE": "cpu",
            "WEIGHTS": str(folder / "model.pth"),
            "VGG": {"DEPTH": 11, "WIDTH_MULTIPLIER": 0.125},
            "ROI_HEADS": {"NUM_CLASSES": 3},
            "ROI_BOX_HEAD": {"FC_DIM": 32},
            "RPN": {"POST_NMS_TOPK_TEST": 20},
        },
        "INPUT": {"MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 128},
        "DATASETS": {"TEST": ["kitchen_test"], "REGISTER": {"kitchen_test": dataset}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    detector = build_model(load_config(str(folder / "config.yaml")))
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight.normal_(std=20.0)
    DetectionCheckpointer(detector, str(folder)).save("model")
    return folder


@pytest.fixture(scope="session")
def expected(kitchen):
    """Image and least score to what is to be found there, as the predictor itself finds it."""
    predictor = Predictor(load_config(str(kitchen / "config.yaml")))
    names = predictor.metadata.thing_classes

    def detect(image, least):
        found = predictor(image)["instances"]
        found = found[found.scores > least]
        assert len(found) > 0
        return [
            (names[c], pytest.approx(score, abs=1e-4), pytest.approx(box, abs=0.01))
            for c, score, box in zip(
                found.pred_classes.tolist(),
                found.scores.tolist(),
                found.pred_boxes.tensor.tolist(),
            )
        ]

    return detect
