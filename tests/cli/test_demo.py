"""tools/demo.py from files to pictures and json, and the reading of its inputs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sparsedet.cli import demo
from sparsedet.errors import InputError
from sparsedet.images import find_images, open_video, read_image

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tools" / "demo.py"
THRESHOLD = 0.9


def command(kitchen, *args):
    fixed = ["--config-file", kitchen / "config.yaml", "--confidence-threshold", THRESHOLD]
    return [sys.executable, *map(str, [DEMO, *fixed, *args])]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def found_in(record):
    return [(d["class"], d["score"], d["box"]) for d in record["detections"]]


def run_in_process(monkeypatch, kitchen, *args):
    monkeypatch.setattr(sys, "argv", command(kitchen, *args)[1:])
    demo.main()


def test_images_good_and_bad(kitchen, expected, tmp_path, picture):
    photos, more, output = tmp_path / "photos", tmp_path / "more", tmp_path / "output"
    photos.mkdir()
    more.mkdir()
    Image.fromarray(picture(48, 80, 0)).save(photos / "a.jpg")
    Image.fromarray(picture(160, 120, 1)).save(photos / "b.png")
    Image.fromarray(picture(60, 60, 2)).save(more / "a.jpg")  # of the same name
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(picture(30, 40, 3)).save(more / "turned.jpg", exif=turned)
    Image.fromarray(picture(1, 400)).save(more / "line.png")
    cut = (photos / "b.png").read_bytes()
    (photos / "cut.png").write_bytes(cut[: len(cut) // 2])
    (photos / "notes.txt").write_text("not searched for")
    (more / "empty.jpg").touch()

    inputs = [photos, more / "*", photos / "a.jpg", tmp_path / "gone.jpg", tmp_path / "*.tif"]
    done = subprocess.run(
        command(kitchen, "--input", *inputs, "--output", output),
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: 5 of 9 inputs could not be read: ")
    for bad in (
        f"{tmp_path}/gone.jpg: no such file or folder",
        f"{tmp_path}/*.tif: no file matches",
        f"{photos}/cut.png: image file is truncated",
        f"{more}/empty.jpg: empty file",
        f"{more}/line.png: 400 x 1 pixels are too narrow",
    ):
        assert bad in error
    assert "Traceback" not in done.stderr
    assert "/7 " in done.stderr  # progress over the files

    records = json.loads((output / "detections.json").read_text())
    assert [(r["file"], r["output"], r["width"], r["height"]) for r in records] == [
        (str(photos / "a.jpg"), "a.jpg", 80, 48),
        (str(photos / "b.png"), "b.png", 120, 160),
        (str(more / "a.jpg"), "a_2.jpg", 60, 60),
        (str(more / "turned.jpg"), "turned.jpg", 30, 40),
    ]
    for record in records:
        image = read_image(record["file"])
        assert found_in(record) == expected(image, THRESHOLD)
        drawn = read_image(str(output / record["output"]))
        assert drawn.shape == image.shape
        assert np.abs(drawn.astype(int) - image).max() > 100  # boxes
    pictures = {record["output"] for record in records}
    assert set(os.listdir(output)) == {"detections.json", *pictures}


def test_interrupt_keeps_what_was_done(kitchen, tmp_path, picture):
    for i in range(300):
        Image.fromarray(picture(64, 64, i)).save(tmp_path / f"{i:03}.png")
    output = tmp_path / "output"
    process = subprocess.Popen(
        command(kitchen, "--input", tmp_path, "--output", output),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        # Where the tests run in the background, the signal may be ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and not (output / "001.png").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    records = json.loads((output / "detections.json").read_text())
    assert 1 <= len(records) < 300
    for record in records:
        assert read_image(str(output / record["output"])).shape == (64, 64, 3)


def test_video(kitchen, expected, tmp_path, monkeypatch, capsys, picture):
    clip, output = tmp_path / "clip.avi", tmp_path / "output"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    if not writer.isOpened():
        pytest.skip("OpenCV without this codec")
    for i in range(4):
        writer.write(picture(64, 96, i))
    writer.release()
    run_in_process(monkeypatch, kitchen, "--video-input", clip, "--output", output)
    assert "in 4 frames" in capsys.readouterr().out
    assert sorted(os.listdir(output)) == ["clip.mp4", "detections.json"]

    records = json.loads((output / "detections.json").read_text())
    assert [record["frame"] for record in records] == [0, 1, 2, 3]
    original, annotated = open_video(str(clip)), open_video(str(output / "clip.mp4"))
    assert annotated.get(cv2.CAP_PROP_FPS) == 5
    for record in records:
        frame, drawn = original.read()[1], annotated.read()[1]
        assert drawn.shape == frame.shape == (record["height"], record["width"], 3)
        assert found_in(record) == expected(frame, THRESHOLD)
    assert not annotated.read()[0]


def test_refused_before_anything_is_written(kitchen, tmp_path, monkeypatch, picture):
    photo, output = tmp_path / "photo.png", tmp_path / "output"
    Image.fromarray(picture(40, 40)).save(photo)
    before = photo.read_bytes()
    classes = ["--opts", "MODEL.ROI_HEADS.NUM_CLASSES", "4"]
    for args, message in (
        (["--input", photo, "--output", tmp_path], "choose another folder"),
        (["--input", tmp_path / "gone.png", "--output", output], "gone.png: no such file"),
        (["--video-input", tmp_path / "gone.mp4", "--output", output], "gone.mp4: no such file"),
        (["--video-input", kitchen / "config.yaml", "--output", output], "not a video"),
        (["--input", photo, "--output", output, *classes], "architecture|classes"),
        (["--input", photo, "--output", kitchen / "model.pth"], "--output .*model.pth: "),
    ):
        with pytest.raises(InputError, match=message):
            run_in_process(monkeypatch, kitchen, *args)
    assert not output.exists()
    assert photo.read_bytes() == before


def test_find_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "read.me", "[1].png", "in/c.tif", "in/deep/d.webp", "empty/x"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_images(["."]) == (["[1].png", "a.png", "b.JPG"], [])
    assert find_images(["read.me", "./a.png", "a.png"]) == (["read.me", "a.png"], [])
    assert find_images(["**/*.[tw]*"])[0] == ["in/c.tif", "in/deep/d.webp"]
    assert find_images(["[1].png"]) == (["[1].png"], [])
    assert find_images(["empty", "no", "*.bmp"]) == (
        [],
        ["empty: no image in this folder", "no: no such file or folder", "*.bmp: no file matches"],
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_8_bits(tmp_path, mode, picture):
    image = Image.fromarray(picture(20, 30)).convert(mode)
    path = str(tmp_path / ("image.tif" if mode == "CMYK" else "image.png"))
    image.save(path)
    expected = np.asarray(image.convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_files_are_scaled(tmp_path, bits, suffix):
    ramp = np.linspace(0, 2**bits - 1, 600).reshape(20, 30)
    path = str(tmp_path / f"ramp.{suffix}")
    assert cv2.imwrite(path, ramp.astype(np.uint16))
    read = read_image(path)
    assert read.shape == (20, 30, 3) and read.dtype == np.uint8
    np.testing.assert_allclose(read[:, :, 0], ramp * 255 / (2**bits - 1), atol=1)


def test_float_files_are_scaled(tmp_path):
    ramp = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    ramp[0, 0] = np.nan
    path = str(tmp_path / "ramp.tif")
    for white in (1, 255):
        Image.fromarray(ramp * white).save(path)
        np.testing.assert_allclose(read_image(path)[:, :, 0], np.nan_to_num(ramp) * 255, atol=1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("deep", [False, True])
def test_upright(tmp_path, suffix, deep, picture):
    pixels = picture(20, 30)[:, :, 0]
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if deep else pixels)
    path = str(tmp_path / f"image.{suffix}")
    upright = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    upright.update({5: pixels.T, 6: upright[4].T, 7: upright[3].T, 8: upright[2].T})
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif)
        np.testing.assert_allclose(read_image(path)[:, :, 1], expected, atol=1)


def test_unreadable_images(tmp_path, picture):
    good = tmp_path / "good.jpg"
    Image.fromarray(picture(100, 100)).save(good)
    data = good.read_bytes()
    for name, content, message in (
        ("cut.jpg", data[: len(data) // 2], "truncated"),
        ("text.jpg", b"no image", "not an image"),
        ("empty.jpg", b"", "empty file"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            read_image(str(path))
    with pytest.raises(InputError, match="gone.jpg: no such file"):
        read_image(str(tmp_path / "gone.jpg"))
