"""A local Ray cluster of two workers finds what one process finds, also when a worker dies."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from sparsedet.cli import predict
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


ODD = ["a b", "a#b", "a%20b", "a?b;c=d", "a&b+c", "[a]", "bäß→", "_under"]


def test_odd_names_in_an_odd_folder(cluster, model, folder, tmp_path, monkeypatch, capsys):
    """As one process takes them: the images directly in a folder, whatever they are called."""
    photos = tmp_path / "my photos #1 %41"
    (photos / "below").mkdir(parents=True)
    shutil.copy(folder / "0.png", photos / "below")
    for number, name in enumerate(ODD):
        shutil.copy(folder / f"{number}.png", photos / f"{name}.png")
    found = predicted(monkeypatch, model, photos, tmp_path / "found")
    assert len(found) == len(ODD)
    (photos / "below").rename(tmp_path / "below")
    assert_as_one_process(found, model, photos)

    with pytest.raises(InputError, match=r"a\\nb.png': Ray reads no name with a tab or a line"):
        next(ray_data.detect_on_ray(model, [str(photos / "a\nb.png")], workers=1))

    monkeypatch.setattr(ray_data, "detect_on_ray", lambda *args, **kwargs: iter(found[1:]))
    with pytest.raises(InputError, match=r"1 inputs .*: Ray did not read it"):
        predicted(monkeypatch, model, photos, tmp_path / "found")


def predicted(monkeypatch, model, images, output):
    """What ``sparsedet predict --ray`` writes."""
    arguments = ["--model", model, "--input", str(images), "--output", str(output), "--ray", "1"]
    monkeypatch.setattr("sys.argv", ["sparsedet", *arguments, "--confidence-threshold", "0.3"])
    predict.main()
    return [json.loads(line) for line in (output / "detections.jsonl").read_text().splitlines()]


def test_nothing_to_read(cluster, model, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        list(ray_data.detect_on_ray(model, [str(tmp_path / "nowhere")], workers=1))
