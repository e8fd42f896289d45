"""A local Ray cluster of two workers finds what one process finds, also when a worker dies."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from PIL import Image

from sparsedet.detection.load import load_model
from sparsedet.errors import InputError
from sparsedet.exporting.exporter import export_graph
from sparsedet.images import read_image
from sparsedet.runtime import ray_data
from sparsedet.runtime.detector import Detector
from sparsedet.runtime.records import record
from sparsedet.telemetry import require_engine

ray = require_engine("ray", "this test")


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(kitchen, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("exported") / "model.onnx")
    names = ["cup", "plate", "spoon"]
    export_graph(
        load_model(kitchen / "config.yaml"), path, class_names=names, min_size=64, max_size=128
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(12):
        small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 72)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def assert_as_one_process(found, model, folder):
    detector = Detector(model, threads=1).above(0.3)
    expected = {}
    for path in map(str, folder.iterdir()):
        try:
            image = read_image(path)
            expected[path] = record(path, image, detector(image))
        except InputError as error:
            expected[path] = {"file": path, "error": str(error)}
    assert sum(len(entry.get("detections", ())) for entry in expected.values()) > 12
    assert len(found) == len(expected) and {entry["file"]: entry for entry in found} == expected


def test_two_workers_find_what_one_process_finds(cluster, model, folder, monkeypatch):
    monkeypatch.setattr(ray_data, "BATCH", 2)
    found = ray_data.detect_on_ray(model, [str(folder)], workers=2, above=0.3)
    assert_as_one_process(list(found), model, folder)


def test_a_worker_that_is_killed(cluster, model, folder, monkeypatch, tmp_path):
    killed = tmp_path / "killed"

    class Mortal(ray_data.RayDetector):
        def __call__(self, batch):
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    monkeypatch.setattr(ray_data, "BATCH", 2)
    monkeypatch.setattr(ray_data, "RayDetector", Mortal)
    found = list(ray_data.detect_on_ray(model, [str(folder)], workers=2, above=0.3))
    assert killed.exists()
    assert_as_one_process(found, model, folder)


def test_nothing_to_read(cluster, model, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        list(ray_data.detect_on_ray(model, [str(tmp_path / "nowhere")], workers=1))
