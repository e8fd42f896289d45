"""Data sets in other forms: the same images, boxes and classes, read by each form's own reader."""

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from sparsedet.data import generate_shapes
from sparsedet.data.coco import read_coco
from sparsedet.data.convert import convert
from sparsedet.data.records import Annotations, Object
from sparsedet.data.records import Image as Record
from sparsedet.data.sheet import contact_sheet
from sparsedet.data.voc import read_voc
from sparsedet.data.yolo import read_yolo
from sparsedet.errors import InputError

READERS = {
    "voc": lambda root, part: read_voc(root, part),
    "coco": lambda root, part: read_coco(f"{root}/annotations/{part}.json", f"{root}/images"),
    "yolo": read_yolo,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "shapes"
    generate_shapes(str(root), 5, 3)
    return {"train": read_voc(str(root), "trainval"), "test": read_voc(str(root), "test")}


def content(found):
    """What is in a split, by the bytes of its images."""
    return {
        open(image.file_name, "rb").read(): sorted((obj.name, obj.box) for obj in image.objects)
        for image in found.images
    }


@pytest.mark.parametrize("form", READERS)
def test_what_is_written_is_read_back(shapes, form, tmp_path):
    assert convert(shapes, form, str(tmp_path / "new")) == []
    for part, found in shapes.items():
        again = READERS[form](str(tmp_path / "new"), part)
        assert again.problems == [] and len(again.images) == len(found.images)
        expected, actual = content(found), content(again)
        assert expected.keys() == actual.keys()
        for key, objects in expected.items():
            assert [name for name, _ in objects] == [name for name, _ in actual[key]]
            boxes = [box for _, box in objects], [box for _, box in actual[key]]
            np.testing.assert_allclose(*boxes, atol=1e-4)


@pytest.fixture
def one(tmp_path):
    """Two images of one name in two folders; one with a mask, a crowd and a difficult object."""
    for i in "ab":
        (tmp_path / i).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / i / "x.png")
    polygon = [[4.0, 5.0, 20.0, 5.0, 20.0, 25.0, 4.0, 25.0]]
    objects = [
        Object(
            "wren", [4.0, 5.0, 20.0, 25.0], {"segmentation": polygon, "iscrowd": 0, "area": 300}
        ),
        Object("wren", [1.5, 2.25, 30.0, 20.0], {"iscrowd": 1}),
        Object("owl", [1.5, 2.25, 30.0, 20.0], {"difficult": 1}),
    ]
    images = [
        Record("one", str(tmp_path / "a/x.png"), 40, 30, objects),
        Record("two", str(tmp_path / "b/x.png"), 40, 30, []),
    ]
    return Annotations("a", ["owl", "wren"], 2, images)


def test_what_coco_keeps(one, tmp_path):
    assert convert({"all": one}, "coco", str(tmp_path / "new")) == []
    again = read_coco(str(tmp_path / "new/annotations/all.json"), str(tmp_path / "new/images"))
    assert [os.path.basename(i.file_name) for i in again.images] == ["x.png", "x-2.png"]
    mask, crowd, difficult = again.images[0].objects
    assert mask.extra["segmentation"] == one.images[0].objects[0].extra["segmentation"]
    assert crowd.extra["iscrowd"] == 1 and crowd.box == [1.5, 2.25, 30, 20]
    assert difficult.extra["difficult"] == 1 and difficult.name == "owl"
    rows = json.loads((tmp_path / "new/annotations/all.json").read_text())["annotations"]
    assert rows[0]["area"] == 300 and rows[1]["area"] == 28.5 * 17.75


def test_what_is_lost_is_said(one, tmp_path):
    lost = convert({"all": one}, "voc", str(tmp_path / "voc"))
    assert lost == ["1 masks are left out, for which voc has no place"]
    again = read_voc(str(tmp_path / "voc"), "all").images[0].objects
    assert [obj.extra["difficult"] for obj in again] == [0, 1, 1]  # a crowd counts as difficult
    lost = convert({"all": one}, "yolo", str(tmp_path / "yolo"))
    assert [line.split(" left out")[0] for line in lost] == [
        "1 masks are",
        "1 crowds are",
        "1 objects' marks of being difficult are",
    ]
    assert read_yolo(str(tmp_path / "yolo"), "train").boxes() == {"wren": 1, "owl": 1}


def test_nothing_is_overwritten_or_half_written(one, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        convert({"all": one}, "voc", str(tmp_path / "new"))
    with pytest.raises(InputError, match="birds: YOLO's splits are train, val, test"):
        convert({"train": one, "birds": one}, "yolo", str(tmp_path / "other"))
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "new"]


def test_a_contact_sheet_has_boxes_where_objects_are(one):
    sheet = contact_sheet(one)
    assert sheet.shape == (300 + 16, 400 + 16, 3)  # only images with objects, if there are any
    picture = sheet[8:-8, 8:-8]
    # The frame of the box of 4, 5, 20, 25 in pixels ten times as small, on black.
    assert picture[150, 200].any() and picture[150, 40].any() and not picture[280].any()


def test_a_contact_sheet_of_many(shapes, tmp_path):
    sheet = contact_sheet(shapes["train"], 5)
    assert sheet.shape == (2 * (300 + 8) + 8, 4 * 408 + 8, 3)
    assert (sheet[-150, -10] == 255).all()  # no sixth picture
    assert np.array_equal(sheet, contact_sheet(shapes["train"], 5))
    assert cv2.imwrite(str(tmp_path / "x.png"), sheet)
