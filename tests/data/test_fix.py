"""Mended copies: loaded without a problem, and the original as it was."""

import json
import os

import pytest
import yaml
from PIL import Image

from sparsedet.data.entries import parse_entry
from sparsedet.data.fix import fix
from sparsedet.errors import InputError


def files(root):
    return {
        os.path.relpath(os.path.join(folder, name), root): open(
            os.path.join(folder, name), "rb"
        ).read()
        for folder, _, names in os.walk(root)
        for name in names
    }


def mended(tmp_path, entry):
    """The entry's copy, after what was done to it; the original must not change."""
    before = files(tmp_path / "old")
    done = fix(parse_entry("x", entry), str(tmp_path / "new"))
    assert files(tmp_path / "old") == before
    moved = {
        key: value.replace("/old", "/new") if isinstance(value, str) else value
        for key, value in entry.items()
    }
    return parse_entry("x", moved), {what: count for what, count in done.items() if count}


def voc_object(*corners, extra=""):
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{key}>{corner}</{key}>" for key, corner in zip(keys, corners))
    return f"<object><name>wren</name>{extra}<bndbox>{box}</bndbox></object>"


def test_voc(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "old" / folder).mkdir(parents=True)
    objects = [
        voc_object(1, 1, 9, 9, extra="<pose>Left</pose>"),
        voc_object(9, 5, 5, 5.5),  # inverted
        voc_object(20, 20, 44, 30),  # clipped
        voc_object(5, 5, 5, 5),  # empty
        voc_object("nan", 5, 5, 5),
    ]
    size = "<size><width>40</width><height>30</height></size>"
    bodies = {
        "a": size + "".join(objects),
        "b": "<size><width>0</width><height>0</height></size>" + objects[0],
        "c": size,
        "d": size + objects[0],
        "lost": size,
    }
    for stem, body in bodies.items():
        (tmp_path / f"old/Annotations/{stem}.xml").write_text(f"<annotation>{body}</annotation>")
        if stem != "lost":
            Image.new("RGB", (40, 30)).save(tmp_path / f"old/JPEGImages/{stem}.jpg")
    (tmp_path / "old/Annotations/c.xml").write_text("<annotation>")
    (tmp_path / "old/ImageSets/Main/train.txt").write_text("a\nb\nc\nlost\ngone\n")
    (tmp_path / "old/ImageSets/Main/test.txt").write_text("d\n")
    entry = {"format": "voc", "root": str(tmp_path / "old"), "split": "train"}
    with pytest.raises(InputError):
        parse_entry("x", entry)()
    source, done = mended(tmp_path, entry)
    assert done == {
        "boxes put in order or clipped": 2,
        "boxes left out": 2,
        "image sizes taken from the image": 1,
        "files left out, without a counterpart or not readable": 2,
        "lines of lists left out": 3,
    }
    assert source.read().problems == []
    first, second = source()
    assert [obj["bbox"] for obj in first["annotations"]] == [
        [0, 0, 9, 9],
        [4, 4, 9, 5.5],
        [19, 19, 40, 30],
    ]
    assert (second["width"], second["height"]) == (40, 30)
    assert "<pose>Left</pose>" in (tmp_path / "new/Annotations/a.xml").read_text()
    image = "JPEGImages/d.jpg"
    assert os.path.samefile(tmp_path / "old" / image, tmp_path / "new" / image)


def test_coco(tmp_path):
    (tmp_path / "old/images").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"old/images/{name}.png")
    good = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    content = {
        "info": {"year": 2020},
        "licenses": [{"id": 1}],
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": None, "license": 1},
            {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "gone.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 1, "name": "wren"}],
        "annotations": [
            good,
            {**good, "bbox": [10, 10, -4, 5]},
            {**good, "bbox": [30, 20, 12, 8], "area": 96},
            {**good, "bbox": [10, 10, 35, 25]},  # x0, y0, x1, y1: clipped, it would be wrong
            {**good, "bbox": ["1", 2, 3, 4]},
            {**good, "image_id": 3},
            {**good, "segmentation": [[1, 2]]},
            7,
        ],
    }
    (tmp_path / "old/x.json").write_text(json.dumps(content))
    entry = {
        "format": "coco",
        "json": str(tmp_path / "old/x.json"),
        "images": str(tmp_path / "old/images"),
    }
    source, done = mended(tmp_path, entry)
    assert done == {
        "image sizes taken from the image": 1,
        "files left out, without a counterpart or not readable": 2,
        "boxes put in order or clipped": 2,
        "boxes left out": 4,
        "masks or keypoints left out": 1,
    }
    assert source.read().problems == []
    new = json.loads((tmp_path / "new/x.json").read_text())
    assert new["info"] == content["info"] and new["licenses"] == content["licenses"]
    assert new["images"][0] == {**content["images"][0], "height": 30}
    assert new["annotations"] == [
        good,
        {**good, "bbox": [6, 10, 4, 5], "area": 20},
        {**good, "bbox": [30, 20, 10, 8], "area": 80},
        good,
    ]


def test_an_image_outside_its_folder_is_not_written_outside(tmp_path):
    (tmp_path / "old/images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "old/a.png")
    images = [{"id": 1, "file_name": "../a.png", "width": 40, "height": 30}]
    content = {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": []}
    (tmp_path / "old/x.json").write_text(json.dumps(content))
    entry = {"format": "coco", "json": str(tmp_path / "old/x.json")}
    source = parse_entry("x", {**entry, "images": str(tmp_path / "old/images")})
    with pytest.raises(InputError, match="../a.png is not below"):
        fix(source, str(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["old"]


def test_yolo(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "old" / folder / "train").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"old/images/train/{name}.png")
    lines = ["0 0.5 0.5 0.2 0.2", "0 0.9 0.5 0.3 0.2", "0 0.5 0.5 0 0.2", "0 x", "0 0.5 0.5 -.2 .2"]
    (tmp_path / "old/labels/train/a.txt").write_text("\n".join(lines))
    (tmp_path / "old/labels/train/b.txt").write_text(lines[0])
    (tmp_path / "old/labels/train/lost.txt").write_text(lines[0])
    content = {"path": str(tmp_path / "old"), "train": "images/train", "names": ["a"], "more": 1}
    (tmp_path / "old/data.yaml").write_text(yaml.safe_dump(content))
    entry = {"format": "yolo", "root": str(tmp_path / "old"), "split": "train"}
    source, done = mended(tmp_path, entry)
    assert done == {
        "boxes put in order or clipped": 2,
        "boxes left out": 2,
        "files left out, without a counterpart or not readable": 1,
    }
    found = source.read()
    assert found.problems == [] and str(tmp_path / "new") in found.images[0].file_name
    boxes = [obj.box for obj in found.images[0].objects]
    expected = [[16, 12, 24, 18], [30, 12, 40, 18], [16, 12, 24, 18]]
    assert boxes == [pytest.approx(box, abs=1e-5) for box in expected]
    assert yaml.safe_load((tmp_path / "new/data.yaml").read_text())["more"] == 1


def test_never_over_something_nor_into_itself(tmp_path):
    (tmp_path / "old").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "old/a.png")
    size = "<size><width>40</width><height>30</height></size>"
    xml = f"<annotation>{size}{voc_object(1, 1, 9, 9)}</annotation>"
    (tmp_path / "old/a.xml").write_text(xml)
    source = parse_entry("x", {"format": "voc", "root": str(tmp_path / "old")})
    with pytest.raises(InputError, match="exists already"):
        fix(source, str(tmp_path / "old"))
    with pytest.raises(InputError, match="choose another place"):
        fix(source, str(tmp_path / "old/new"))
    assert sorted(os.listdir(tmp_path / "old")) == ["a.png", "a.xml"]
