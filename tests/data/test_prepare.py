"""The scripts in datasets/: unpacking official archives, and --check."""

import io
import json
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsedet.data import SHAPE_CLASSES, generate_shapes
from sparsedet.data.archives import install_archives
from sparsedet.data.check import check_split
from sparsedet.data.coco import read_coco
from sparsedet.data.voc import read_voc
from sparsedet.errors import InputError

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture
def shapes(tmp_path):
    root = tmp_path / "shapes"
    generate_shapes(str(root), 4, 2)
    return root


def jpeg():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def kinds(report):
    return sorted(problem.kind for problem in report.problems)


def break_images(root):
    """One truncated, one of another size."""
    first, second = root / "JPEGImages/000001.jpg", root / "JPEGImages/000002.jpg"
    first.write_bytes(first.read_bytes()[:2000])
    second.write_bytes(jpeg())


def check_voc(root, split, classes=None, expected_images=None):
    return check_split("a", lambda: read_voc(str(root), split, classes), "drop", expected_images)


def check_coco(json_file, images, expected_images=None):
    return check_split("a", lambda: read_coco(str(json_file), str(images)), "drop", expected_images)


def test_check_of_what_is_whole(shapes):
    check = check_voc(shapes, "trainval", SHAPE_CLASSES, expected_images=4)
    assert (check.images, check.problems, check.stops) == (4, [], False)
    coco = check_coco(shapes / "annotations/trainval.json", shapes / "JPEGImages", 4)
    assert (coco.images, coco.problems, coco.stops) == (4, [], False)
    assert coco.boxes == check.boxes
    assert "nothing missing or broken" in str(check)


def test_check_of_a_broken_voc_folder(shapes):
    break_images(shapes)
    (shapes / "JPEGImages/000003.jpg").unlink()
    (shapes / "Annotations/000004.xml").write_text("<annotation>")
    check = check_voc(shapes, "trainval", expected_images=5)
    assert kinds(check) == ["bad annotation"] + ["bad image"] * 2 + ["incomplete", "missing image"]
    assert check.images == 4 and check.stops
    assert "000004.xml: cannot be parsed" in str(check)
    assert kinds(check_voc(shapes, "val")) == ["unusable"]
    assert "unknown class" in kinds(check_voc(shapes, "test", ["circle"]))


def test_check_of_a_broken_coco_json(shapes):
    break_images(shapes)
    (shapes / "JPEGImages/000003.jpg").unlink()
    path = shapes / "annotations/trainval.json"
    content = json.loads(path.read_text())
    good = {"image_id": 4, "category_id": 1, "bbox": [0, 0, 256.5, 10]}
    content["annotations"] = [
        good,
        {**good, "bbox": [0, 0, 300, 10]},
        {**good, "bbox": [9, 0, -5, 10]},
        {**good, "bbox": [1, 2, 3]},
        {**good, "image_id": 99},
        {**good, "category_id": 99},
        {**good, "bbox": [5, 5, 0, 10]},
    ]
    path.write_text(json.dumps(content))
    check = check_coco(path, shapes / "JPEGImages")
    assert kinds(check) == (
        ["bad box"] * 5 + ["bad image"] * 2 + ["missing image", "unknown class"]
    )
    assert check.boxes == {"circle": 1} and check.stops
    assert kinds(check_coco(path, shapes / "nowhere")) == ["unusable"]


def test_check_of_boxes_that_loading_leaves_out(shapes):
    path = shapes / "annotations/trainval.json"
    content = json.loads(path.read_text())
    good = content["annotations"][0]
    content["annotations"] = [good] * 40 + [{**good, "bbox": [5, 5, 0, 10]}]
    path.write_text(json.dumps(content))
    check = check_coco(path, shapes / "JPEGImages")
    assert not check.stops and kinds(check) == ["bad box"]
    assert "1 problems, which loading leaves out" in str(check)
    stopped = check_split("a", lambda: read_coco(str(path), str(shapes / "JPEGImages")), "stop")
    assert stopped.stops


def tar(path, files):
    with tarfile.open(path, "w") as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def test_archives_are_merged_and_absent_ones_named(tmp_path, capsys):
    tar(tmp_path / "one.tar", {"kit/V/A/1.xml": b"1", "kit/V/lists/one.txt": b"1"})
    tar(tmp_path / "two.tar", {"kit/V/A/2.xml": b"2", "kit/V/lists/two.txt": b"2"})
    target = tmp_path / "datasets"
    names = ["one.tar", "two.tar", "three.tar"]
    install_archives(str(tmp_path), names[::2], "a page", "kit", str(target))
    assert "three.tar; get it from a page" in capsys.readouterr().out
    install_archives(str(tmp_path), names, "a page", "kit", str(target))
    assert sorted(os.listdir(target / "V/A")) == ["1.xml", "2.xml"]
    assert sorted(os.listdir(target)) == ["V"]


def test_bad_archives_leave_nothing_behind(tmp_path):
    tar(tmp_path / "escape.tar", {"kit/a": b"1", "../escaped": b"2"})
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and no more")
    tar(tmp_path / "whole.tar", {"kit/a": bytes(20000)})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:5000])
    target = tmp_path / "inner" / "datasets"
    for name in ("escape.tar", "cut.zip", "cut.tar"):
        with pytest.raises(InputError, match=f"{name}: cannot be unpacked"):
            install_archives(str(tmp_path), [name], "a page", "kit", str(target))
    with pytest.raises(InputError, match="holds no folder other"):
        install_archives(str(tmp_path), ["whole.tar"], "a page", "other", str(target))
    with pytest.raises(InputError, match="none of nothing.tar is there; get them from a page"):
        install_archives(str(tmp_path), ["nothing.tar"], "a page", "kit", str(target))
    assert os.listdir(target) == [] and not os.path.exists(tmp_path / "inner/escaped")


def test_nothing_lands_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / "escape.zip", "w") as file:
        file.writestr("../escaped", b"1")
        file.writestr("kit/a", b"2")
    with tarfile.open(tmp_path / "link.tar", "w") as file:
        link = tarfile.TarInfo("kit/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        file.addfile(link)
    target = tmp_path / "inner" / "datasets"
    install_archives(str(tmp_path), ["escape.zip"], "a page", "kit", str(target))
    assert os.listdir(target) == ["a"] and os.listdir(tmp_path / "inner") == ["datasets"]
    with pytest.raises(InputError, match="link.tar: cannot be unpacked"):
        install_archives(str(tmp_path), ["link.tar"], "a page", "kit", str(target))


def test_prepare_voc(tmp_path):
    sizes = "<size><width>40</width><height>30</height></size>"
    kit = "VOCdevkit/VOC2007"
    tar(
        tmp_path / "VOCtrainval_06-Nov-2007.tar",
        {
            f"{kit}/ImageSets/Main/trainval.txt": b"a\nb\n",
            f"{kit}/Annotations/a.xml": f"<annotation>{sizes}</annotation>".encode(),
            f"{kit}/JPEGImages/a.jpg": jpeg(),
        },
    )
    result = subprocess.run(
        [sys.executable, SCRIPTS / "prepare_voc.py", "--from", tmp_path, "--check"],
        env={
            **os.environ,
            "DETECTRON2_DATASETS": str(tmp_path / "datasets"),
            "PYTHONPATH": str(SCRIPTS.parent),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "VOCtrainval_11-May-2012.tar; get it from" in result.stdout
    assert "VOC2007 trainval: 2 images, 0 boxes; 2 problems" in result.stdout
    assert "missing annotation: 1" in result.stdout
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'datasets'}")


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Runs a script with arguments in this process: (exit status, stdout, stderr)."""

    def run(name, *arguments):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_prepare_voc_for_any_folder(shapes, script):
    arguments = ("prepare_voc.py", "--check", "--root", shapes)
    status, out, _ = script(*arguments)
    assert status == 0 and "trainval: 4 images" in out and "test: 2 images" in out
    status, out, err = script(*arguments, "--split", "test", "--classes", "owl")
    assert status == 1 and "unknown class: " in out and err.splitlines()[-1].startswith("error: ")


def test_prepare_coco(tmp_path, shapes, script):
    with zipfile.ZipFile(tmp_path / "val2017.zip", "w") as file:
        file.writestr("val2017/000000000001.jpg", jpeg())
    assert script("prepare_coco.py", "--from", tmp_path)[0] == 0
    assert (tmp_path / "datasets/coco/val2017/000000000001.jpg").is_file()
    status, out, _ = script("prepare_coco.py", "--check")
    assert status == 1 and "instances_val2017.json: no such annotation file" in out
    images, file = shapes / "JPEGImages", shapes / "annotations/test.json"
    status, out, _ = script("prepare_coco.py", "--check", "--json", file, "--images", images)
    assert status == 0 and "2 images" in out and "nothing missing or broken" in out


def test_prepare_shapes(tmp_path, script):
    arguments = ("prepare_shapes.py", "--num-train", 2, "--num-test", 1)
    assert "written" in script(*arguments)[1]
    assert "there already" in script(*arguments)[1]
    (tmp_path / "datasets/shapes/shapes.json").unlink()
    status, _, err = script(*arguments)
    assert status == 1 and "not a demo set" in err.splitlines()[-1]
    status, _, err = script("prepare_shapes.py", "--output", tmp_path / "x", "--num-train", 0)
    assert status == 1 and "at least one picture" in err.splitlines()[-1]
