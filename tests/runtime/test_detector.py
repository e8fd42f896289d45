"""From a checkpoint through tools/export_model.py to tools/predict.py, which needs no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image

from sparsedet.errors import InputError
from sparsedet.runtime.detector import Detector, preprocess, resized_shape
from sparsedet.runtime.model_info import ModelInfo

ROOT = Path(__file__).parents[2]
THRESHOLD = 0.9
# Runs a script as if neither were installed.
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules.update(torch=None, torchvision=None, detectron2=None); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def export_arguments(kitchen, output, *more):
    config = ["--config-file", kitchen / "config.yaml"]
    return ["export_model.py", *config, "--output", output, *more]


@pytest.fixture(scope="module")
def exported(kitchen):
    done = subprocess.run(
        [sys.executable, *map(str, export_arguments(kitchen, kitchen / "model.onnx"))],
        cwd=ROOT / "tools", env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "beside PyTorch, on one picture: " in done.stdout
    assert " 0 without a counterpart" in done.stdout and " 0 detections" not in done.stdout
    return kitchen / "model.onnx"


def predict(exported, *args):
    """tools/predict.py in a process that has no torch."""
    script = [str(ROOT / "tools" / "predict.py"), "--model", str(exported)]
    fixed = ["--confidence-threshold", str(THRESHOLD), "--threads", "1"]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *script, *fixed, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


def test_images_good_and_bad_without_torch(exported, expected, tmp_path, picture):
    photos, output = tmp_path / "photos", tmp_path / "output"
    photos.mkdir()
    colours = picture(48, 80)
    Image.fromarray(colours).save(photos / "a.png")
    Image.fromarray(colours[:, :, 0]).save(photos / "grey.png")
    Image.fromarray(np.dstack((colours, colours[:, :, 0]))).save(photos / "alpha.png")
    cv2.imwrite(str(photos / "deep.png"), colours.astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(picture(30, 40)).save(photos / "turned.jpg", exif=turned)
    Image.fromarray(picture(1, 1)).save(photos / "point.png")
    Image.fromarray(picture(10000, 100)).save(photos / "strip.png")
    (photos / "text.jpg").write_text("no image")

    done = predict(exported, "--input", photos, tmp_path / "gone.jpg", "--output", output)

    assert done.returncode == 1 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: 3 of 9 inputs could not be read: ")
    for bad in (
        f"{tmp_path}/gone.jpg: no such file or folder",
        f"{photos}/strip.png: 100 x 10000 pixels are too narrow for the model",
        f"{photos}/text.jpg: not an image",
    ):
        assert bad in error
    records = json.loads((output / "detections.json").read_text())
    names = ["a.png", "alpha.png", "deep.png", "grey.png", "point.png", "turned.jpg"]
    assert [record["output"] for record in records] == names
    assert (records[5]["width"], records[5]["height"]) == (30, 40)
    assert {*names, "detections.json"} == set(os.listdir(output))
    for record in records[:2]:  # alpha is dropped
        found = [(d["class"], d["score"], d["box"]) for d in record["detections"]]
        assert found == expected(colours[:, :, ::-1], THRESHOLD)


def test_video(exported, tmp_path, run_tool, picture):
    clip, output = tmp_path / "clip.avi", tmp_path / "output"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    if not writer.isOpened():
        pytest.skip("OpenCV without this codec")
    for i in range(3):
        writer.write(picture(64, 96, i))
    writer.release()
    status, errors = run_tool(
        "predict.py", "--model", exported, "--video-input", clip, "--output", output
    )
    assert status == 0, errors
    records = json.loads((output / "detections.json").read_text())
    assert [(record["frame"], record["output"]) for record in records] == [
        (0, "clip.mp4"), (1, "clip.mp4"), (2, "clip.mp4")
    ]  # fmt: skip
    assert sum(len(record["detections"]) for record in records) > 0


@pytest.fixture
def noise(tmp_path):
    """A video of 40 frames that no codec makes small."""
    clip = tmp_path / "noise.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    if not writer.isOpened():
        pytest.skip("OpenCV without this codec")
    generator = np.random.default_rng(0)
    for _ in range(40):
        writer.write(generator.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return clip


def test_a_video_that_cannot_be_written_whole_is_not_there(exported, tmp_path, noise):
    """Files may not grow beyond 50 kB, as where a disk is full."""
    pytest.importorskip("resource")
    output = tmp_path / "output"
    code = WITHOUT_TORCH.replace(
        "runpy.run", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000,) * 2); "
        "runpy.run"
    )  # fmt: skip
    script = [ROOT / "tools" / "predict.py", "--model", exported, "--video-input", noise]
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, script), "--output", output],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 1 and "noise.mp4: cannot be written whole" in ended.stderr
    assert list(output.iterdir()) == []


def test_of_a_damaged_video_nothing_is_left(exported, tmp_path, noise, run_tool):
    noise.write_bytes(noise.read_bytes()[: noise.stat().st_size // 2])
    output = tmp_path / "output"
    status, errors = run_tool(
        "predict.py", "--model", exported, "--video-input", noise, "--output", output
    )
    assert status == 1 and "noise.avi: damaged after frame " in errors[-1]
    assert list(output.iterdir()) == []


def test_predict_refuses_before_it_writes(exported, tmp_path, run_tool, picture):
    photo, output = tmp_path / "photo.png", tmp_path / "output"
    Image.fromarray(picture(40, 40)).save(photo)
    for args, message in (
        (["--input", photo, "--output", tmp_path], "choose another folder"),
        (["--input", tmp_path / "no.png", "--output", output], "no.png: no such file or folder"),
        (["--video-input", photo.with_suffix(".mp4"), "--output", output], "mp4: no such file"),
        (
            ["--input", photo, "--output", output, "--confidence-threshold", 0.01],
            "gives nothing below",
        ),
        (["--input", photo, "--output", output, "--precision", "bf16"], "not compute in 'bf16'"),
    ):
        status, errors = run_tool("predict.py", "--model", exported, *args)
        assert status == 1 and errors[-1].startswith("error: ") and message in errors[-1]
    assert not output.exists()


def test_files_that_are_no_exported_detector(exported, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="model.onnx: no such model file"):
        Detector(path)
    data = exported.read_bytes()
    for part in (data[: len(data) // 2], data[:-200], b"", b"no model"):
        path.write_bytes(part)
        with pytest.raises(InputError, match="model.onnx: not a model .* or truncated"):
            Detector(path)
    other = onnx.load(exported)
    del other.metadata_props[:]
    onnx.save(other, path)
    with pytest.raises(InputError, match="model.onnx: no sparsedet metadata"):
        Detector(path)


def test_engines_that_are_not_there(exported, monkeypatch):
    with pytest.raises(InputError, match="there is no engine 'abacus'; one of onnxruntime, openv"):
        Detector(exported, "abacus")
    for engine, extra in (("onnxruntime", "deploy"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, engine, None)
        with pytest.raises(InputError, match=rf'{engine}: pip install "sparsedet\[{extra}\]"'):
            Detector(exported, engine)


def test_export_refuses_and_leaves_the_old_file(kitchen, tmp_path, run_tool):
    output = tmp_path / "model.onnx"
    output.write_text("old")
    empty = tmp_path / "empty"
    empty.mkdir()
    for more, message in (
        (["--precision", "int8"], "int8 needs images"),
        (["--precision", "int8", "--images", empty], "no image in this folder"),
        (["--weights", "no.pth"], "no.pth: no such checkpoint"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", 4], "NUM_CLASSES is 4"),
        (["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"], "only ROIAlign"),
    ):
        status, errors = run_tool(*export_arguments(kitchen, output, *more))
        assert status == 1 and errors[-1].startswith("error: ") and message in errors[-1]
    status, errors = run_tool(*export_arguments(kitchen, tmp_path / "model.pb"))
    assert status == 1 and "must end in .onnx or .xml" in errors[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "model.onnx"]
    assert output.read_text() == "old"


def test_resizing_is_detectron2_s(picture):
    sides = np.random.default_rng(0).integers(1, 3000, (2000, 2)).tolist()
    for height, width in [*sides, [1, 1], [10000, 100], [100, 10000], [600, 600]]:
        for min_size, max_size in ((600, 1000), (192, 256), (800, 1333)):
            expected = ResizeShortestEdge.get_output_shape(height, width, min_size, max_size)
            assert resized_shape(height, width, min_size, max_size) == expected
    info = ModelInfo([], "RGB", 64, 100, 1, 0.05, "f32", "")
    for size in ((50, 70), (64, 90), (300, 20)):
        image = picture(*size)
        expected = ResizeShortestEdge([64, 64], 100).get_transform(image).apply_image(image)
        np.testing.assert_array_equal(preprocess(image, info), expected[:, :, ::-1])
    for wrong in (picture(4, 4)[:, :, 0], picture(4, 4) / 255, picture(4, 4)[:0]):
        with pytest.raises(ValueError, match="an image is"):
            preprocess(wrong, info)
