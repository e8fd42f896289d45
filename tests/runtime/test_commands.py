"""predict and the page on models of masks, keypoints and segments, in a process without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from exporting.kinds import NAMES, STUFF, picture, small_model
from PIL import Image
from pycocotools import mask as coco

from sparsedet.detection.labels import model_labels
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime import web
from sparsedet.runtime.annotate import Annotator, video_name
from sparsedet.runtime.detector import Detector

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = (
    "import sys; sys.modules.update(torch=None, torchvision=None, detectron2=None, "
    "pycocotools=None); from sparsedet.cli.main import main; main()"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported files by kind."""
    folder = tmp_path_factory.mktemp("files")
    for kind in ("mask", "keypoint", "panoptic"):
        model = small_model({"mask": "mask fpn"}.get(kind, kind))
        labels = model_labels(model.cfg, model, NAMES)
        sizes = {"min_size": 96, "max_size": 144}
        export_graph(model, str(folder / f"{kind}.onnx"), class_names=NAMES, labels=labels, **sizes)
    return folder


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, args)], text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=-1, stderr=-1,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mask", "keypoint", "panoptic"])
def test_predict(files, tmp_path, kind):
    Image.fromarray(picture(96, 128)).save(tmp_path / "photo.png")
    output = tmp_path / "output"
    process = start(
        "predict", "--model", files / f"{kind}.onnx", "--input", tmp_path / "photo.png",
        "--output", output, "--confidence-threshold", 0.1,
    )  # fmt: skip
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    (entry,) = json.loads((output / "detections.json").read_text())
    found = Detector(files / f"{kind}.onnx")(picture(96, 128)[:, :, ::-1]).above(0.1)
    assert len(entry["detections"]) == len(found) > 0
    drawn = np.asarray(Image.open(output / "photo.png"))
    assert drawn.shape == (96, 128, 3) and (drawn != picture(96, 128)).any()
    for i, detection in enumerate(entry["detections"]):
        if kind == "keypoint":
            assert len(detection["keypoints"]) == 12
        else:
            mask = coco.decode(detection["segmentation"])
            np.testing.assert_array_equal(mask, found.masks[i])
    if kind == "panoptic":
        assert " segments in 1 images" in printed
        names = {part["class"] for part in entry["segments_info"]}
        assert names and names <= {*NAMES, *STUFF[1:]}


def test_the_page_shows_segments(files):
    pytest.importorskip("flask")
    models = [web.Model(p.name, Detector(p), p.stat().st_size) for p in sorted(files.iterdir())]
    client = web.create_app(models, "of this test").test_client()
    (files.parent / "photo.png").write_bytes(b"")
    Image.fromarray(picture(96, 128)).save(files.parent / "photo.png")
    with open(files.parent / "photo.png", "rb") as file:
        html = client.post("/", data={"picture": (file, "photo.png")}).text
    assert "<dt>Segments</dt>" in html and "<dt>Detections</dt>" in html


@pytest.fixture
def clip(tmp_path):
    """A video of 12 pictures."""
    path = tmp_path / "clip one.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (128, 96))
    if not writer.isOpened():
        pytest.skip("OpenCV without this codec")
    for i in range(12):
        writer.write(picture(96, 128, i))
    writer.release()
    return path


def test_a_stream_is_recorded(files, clip, tmp_path):
    process = start(
        "predict", "--model", files / "mask.onnx", "--video-input", f"file://{clip}",
        "--output", tmp_path / "output",
    )  # fmt: skip
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    records = json.loads((tmp_path / "output" / "detections.json").read_text())
    assert [record["frame"] for record in records] == list(range(12))
    assert (tmp_path / "output" / "clip_one.mp4").is_file()


def test_ctrl_c_keeps_a_stream_and_nothing_of_a_file(files, clip, tmp_path, capsys):
    detector = Detector(files / "mask.onnx", threads=1)

    calls = []

    def detect(frame):
        calls.append(frame)
        if len(calls) % 6 == 0:
            raise KeyboardInterrupt
        return detector(frame)

    Annotator(None, f"file://{clip}", str(tmp_path / "live")).run(detect)
    assert len(json.loads((tmp_path / "live" / "detections.json").read_text())) == 5
    video = cv2.VideoCapture(str(tmp_path / "live" / "clip_one.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    with pytest.raises(KeyboardInterrupt):
        Annotator(None, str(clip), str(tmp_path / "file")).run(detect)
    assert not list((tmp_path / "file").iterdir())


@pytest.mark.parametrize(
    "source, message",
    [
        ("0", "0: no camera or stream that OpenCV can read"),
        ("rtsp://me:secret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live: no camera or stream"),
    ],
)
def test_a_camera_or_stream_that_is_not_there(files, tmp_path, run_tool, source, message):
    if source == "0" and cv2.VideoCapture(0).isOpened():
        pytest.skip("there is a camera")
    status, errors = run_tool(
        "predict.py", "--model", files / "mask.onnx", "--video-input", source,
        "--output", tmp_path / "output",
    )  # fmt: skip
    assert status == 1 and errors[-1].startswith(f"error: {message}")
    assert "secret" not in "".join(errors)


def test_names_of_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_bytes(b"")
    for source, name in {
        "a/clip one.avi": "clip one.mp4",
        "0": "camera-0.mp4",
        "7": "7.mp4",
        "rtsp://host:554/cams/front%20door?x=1": "front_20door.mp4",
        "http://host/live.m3u8": "live.mp4",
        "rtsp://host/": "host.mp4",
    }.items():
        assert video_name(source) == name
