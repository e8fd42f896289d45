"""COCO json by the same rules, and as detectron2 loads it where nothing is wrong."""

import json
import logging

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from PIL import Image

from sparsedet.data import load_coco
from sparsedet.data.coco import read_coco
from sparsedet.data.shares import Share
from sparsedet.errors import InputError

GOOD = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}
TRIANGLE = [[1, 2, 11, 2, 11, 14]]


@pytest.fixture
def files(tmp_path):
    """Writes a json of two images of 60x40, with fields replaced: its path and its folder."""
    for name in "ab":
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / f"{name}.jpg")

    def write(annotations=(GOOD,), **fields):
        content = {
            "images": [
                {"id": 2, "file_name": "b.jpg", "width": 60, "height": 40},
                {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40},
            ],
            "annotations": annotations,
            "categories": [{"id": 7, "name": "wren"}, {"id": 1, "name": "robin"}],
            **fields,
        }
        (tmp_path / "x.json").write_text(json.dumps(content))
        return str(tmp_path / "x.json"), str(tmp_path)

    yield write
    for name in ("ours", "theirs"):
        MetadataCatalog.pop(name, None)


def test_as_detectron2_loads_it(files):
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[5:9, 4:30] = 1
    compressed = pycocotools.mask.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    path, root = files(
        [
            {**GOOD, "image_id": 2, "segmentation": [*TRIANGLE, [1, 2, 3, 4]]},
            {**GOOD, "id": 2, "category_id": 7, "bbox": [0.5, 0.25, 59.5, 39.75]},
            {**GOOD, "id": 3, "segmentation": compressed, "keypoints": [5, 6, 2, 7, 8, 1]},
            {**GOOD, "id": 4, "segmentation": {"counts": counts, "size": [40, 60]}, "iscrowd": 1},
        ]
    )
    theirs = load_coco_json(path, root, "theirs", extra_annotation_keys=["area"])
    for record in theirs:
        for obj in record["annotations"]:
            obj["bbox"] = BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS)
            obj["bbox_mode"] = BoxMode.XYXY_ABS
    assert load_coco(path, root, "ours") == theirs
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert MetadataCatalog.get("ours").get(key) == MetadataCatalog.get("theirs").get(key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 3]}, "not four numbers"),
        ({"bbox": ["1", "2", "30", "40"]}, "not four numbers"),
        ({"bbox": [1, 2, 3, "12.5"]}, "not four numbers"),
        ({"bbox": []}, "not four numbers"),
        ({"bbox": None}, "not four numbers"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "not finite"),
        ({"bbox": [1, 2, float("inf"), 4]}, "not finite"),
        ({"bbox": [1, 2, -3, 4]}, "inverted"),
        ({"bbox": [1, 2, 0, 4]}, "empty"),
        ({"bbox": [-9, 2, 30, 4]}, "outside its image of 60x40"),
        ({"bbox": [1, 2, 30, 44]}, "outside"),
        ({"bbox": [30, 20, 55, 35]}, "are these x0, y0, x1, y1? COCO has x, y, width, height"),
        ({"bbox": ...}, "has no 'bbox'"),
        ({"image_id": 99}, "is of image_id 99, which is no image"),
        ({"image_id": True}, "is of image_id True, which is no image"),
        ({"image_id": [1]}, "which is no image"),
        ({"image_id": ...}, "is of image_id None, which is no image"),
        ({"iscrowd": "0"}, "'iscrowd' '0', not 0 or 1"),
        ({"ignore": 1}, "'ignore' set"),
    ],
)
def test_what_cannot_be_used_is_left_out_or_stops(files, caplog, change, reason):
    bad = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    path, root = files([GOOD, bad])
    with pytest.raises(InputError) as caught:
        load_coco(path, root, "ours")
    assert str(caught.value).startswith(f"{path}: annotations[1] ") and reason in str(caught.value)
    assert "\n" not in str(caught.value)
    path, root = files([*[GOOD] * 19, bad])
    with caplog.at_level(logging.WARNING):
        assert [len(d["annotations"]) for d in load_coco(path, root, "ours")] == [19, 0]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "1 of 20 boxes are left out" in line and "annotations[19] " in line and reason in line


@pytest.mark.parametrize(
    "segmentation",
    [[[]], [[1, 2]], [[1, 2, 3, 4]], [[1, 2, 11, 2, 11, "/etc/passwd"]], [5], "text",
     {"counts": [1], "size": [40, 60]}, {"counts": "abc", "size": [9, 9]}, {"size": [40, 60]}],
)  # fmt: skip
def test_a_mask_that_cannot_be_used_leaves_its_box(files, caplog, segmentation):
    path, root = files([GOOD, {**GOOD, "segmentation": segmentation}])
    with caplog.at_level(logging.WARNING):
        record = load_coco(path, root, "ours")[0]
    assert [obj["bbox"] for obj in record["annotations"]] == [[1, 2, 11, 14]] * 2
    assert not any("segmentation" in obj for obj in record["annotations"])
    assert "1 of 2 masks or keypoints are left out" in caplog.text
    with pytest.raises(InputError, match="annotations.1. has a segmentation"):
        read_coco(path, root).dicts("stop")


def test_an_empty_segmentation_is_none(files, caplog):
    path, root = files([{**GOOD, "segmentation": []}])
    with caplog.at_level(logging.WARNING):
        assert len(load_coco(path, root, "ours")[0]["annotations"]) == 1
    assert not caplog.records


def image(**change):
    row = {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40, **change}
    return {key: value for key, value in row.items() if value is not ...}


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([image(width=0)], "its size is 0x40"),
        ([image(height=None)], "its size is 60xNone"),
        ([image(width=True)], "its size is Truex40"),
        ([image(width=float("inf"))], "its size is infx40"),
        ([image(width=10**400)], "which is no size in pixels"),
        ([image(height=[1])], "which is no size in pixels"),
        ([image(height=...)], "no 'height'"),
        ([image(file_name=[1])], "'file_name' is not the name of a file"),
        ([image(file_name="\0")], "'file_name' is not the name of a file"),
        ([image(id=None)], "'id' is neither"),
        ([image(id=...)], "no 'id'"),
        (["text"], "no 'id'"),
        ([image(), image(file_name="b.jpg")], "image id 1 is that of"),
        ([image(file_name="gone.jpg")], "gone.jpg: no such file, but"),
    ],
)
def test_bad_images_stop(files, images, reason):
    path, root = files(images=images)
    with pytest.raises(InputError) as caught:
        load_coco(path, root, "ours")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"categories": [{"id": None, "name": "a"}]}, "'id' of a category is not a whole number"),
        ({"categories": [{"id": True, "name": "a"}]}, "'id' of a category is not a whole number"),
        ({"categories": [{"id": 1, "name": [1]}]}, "'name' of a category is not a text"),
        ({"categories": [{"id": 1, "name": 3}]}, "'name' of a category is not a text"),
        ({"categories": [{"id": 1, "name": ""}]}, "'name' of a category is not a text"),
        ({"categories": ["a"]}, "'id' of a category"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "two categories of id 1"),
        ({"annotations": 5}, "'annotations' is not a list"),
        ({"annotations": [{**GOOD, "category_id": 5}]}, "category_id 5, which is not one of"),
        ({"annotations": [{**GOOD, "category_id": [1]}]}, "which is not one of the categories"),
        ({"annotations": [7]}, "annotations[0] is 7, not an object"),
        ({"images": []}, "no 'images' in it"),
    ],
)
def test_bad_content_stops(files, fields, reason):
    path, root = files(**fields)
    with pytest.raises(InputError) as caught:
        load_coco(path, root, "ours")
    assert str(caught.value).startswith(f"{path}: ") and reason in str(caught.value)


def test_nested_without_end(files, tmp_path):
    path, root = files()
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="nested too deeply"):
        load_coco(path, root, "ours")


def test_images_without_objects_load(files):
    path, root = files(annotations=[])
    assert [d["annotations"] for d in load_coco(path, root, "ours")] == [[], []]


@pytest.mark.parametrize("area", [None, "12", float("nan"), float("inf"), -4, 0, 1e9, True, [1]])
def test_an_area_that_is_none_is_left_out(files, area):
    path, root = files([{**GOOD, "area": area}])
    assert "area" not in load_coco(path, root, "ours")[0]["annotations"][0]


def test_categories_of_one_name_are_one_class(files):
    categories = [{"id": 0, "name": "wren"}, {"id": 1, "name": "robin"}, {"id": 2, "name": "wren"}]
    objects = [{**GOOD, "category_id": i} for i in (2, 1, 0)]
    path, root = files(objects, categories=categories)
    assert [obj["category_id"] for obj in load_coco(path, root, "ours")[0]["annotations"]] == [
        0,
        1,
        0,
    ]
    assert MetadataCatalog.get("ours").thing_classes == ["wren", "robin"]
    assert MetadataCatalog.get("ours").thing_dataset_id_to_contiguous_id == {0: 0, 1: 1}


def test_a_share_takes_images_with_their_objects(files):
    path, root = files([GOOD, {**GOOD, "id": 2, "image_id": 2}])
    parts = [read_coco(path, root, Share(name, 0.5)).dicts() for name in ("train", "test")]
    assert sorted(d["image_id"] for part in parts for d in part) == [1, 2]
    assert [len(d["annotations"]) for part in parts for d in part] == [1, 1]
