"""The demo set: reproducible, its two kinds of annotations equal, its boxes tight."""

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from sparsedet.data import SHAPE_CLASSES, generate_shapes, load_coco, load_voc
from sparsedet.data.shape_pictures import _mask, draw_picture
from sparsedet.errors import InputError


def digest(root):
    """Relative path -> sha256, for every file below `root`."""
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("shapes") / "set")
    assert generate_shapes(root, 20, 6, seed=3)
    return root


def test_same_seed_same_bytes_and_another_seed_other_pictures(shapes, tmp_path):
    generate_shapes(str(tmp_path / "again"), 20, 6, seed=3)
    assert digest(tmp_path / "again") == digest(shapes)
    generate_shapes(str(tmp_path / "other"), 20, 6, seed=4)
    first = "JPEGImages/000001.jpg"
    assert digest(tmp_path / "other")[first] != digest(shapes)[first]


def test_complete_set_is_kept_and_another_one_replaced(tmp_path):
    root = tmp_path / "set"
    assert generate_shapes(str(root), 2, 1)
    before = os.stat(root / "JPEGImages/000001.jpg").st_mtime_ns
    assert not generate_shapes(str(root), 2, 1)
    assert os.stat(root / "JPEGImages/000001.jpg").st_mtime_ns == before
    assert generate_shapes(str(root), 3, 1)
    assert len(os.listdir(root / "JPEGImages")) == 4
    assert os.listdir(tmp_path) == ["set"]


def test_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InputError, match="not a demo set"):
        generate_shapes(str(tmp_path), 2, 1)
    assert os.listdir(tmp_path) == ["mine"]


def test_interrupted_run_leaves_what_was_there(tmp_path, monkeypatch):
    root = tmp_path / "set"
    generate_shapes(str(root), 2, 1)
    before = digest(root)
    drawn = []

    def interrupted(*args):
        drawn.append(args)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw_picture(*args)

    monkeypatch.setattr("sparsedet.data.shapes.draw_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(str(root), 4, 1)
    assert digest(root) == before and os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_voc_and_coco_annotations_are_the_same(shapes, split):
    voc = load_voc(shapes, split, SHAPE_CLASSES)
    images = os.path.join(shapes, "JPEGImages")
    coco = load_coco(os.path.join(shapes, "annotations", f"{split}.json"), images, "shapes_check")
    assert MetadataCatalog.pop("shapes_check").thing_classes == list(SHAPE_CLASSES)
    assert len(voc) == len(coco) == {"trainval": 20, "test": 6}[split]
    for a, b in zip(voc, coco):
        assert int(a["image_id"]) == b["image_id"]
        assert [a[k] for k in ("file_name", "height", "width")] == [
            b[k] for k in ("file_name", "height", "width")
        ]
        assert [(o["category_id"], o["bbox"]) for o in a["annotations"]] == [
            (o["category_id"], BoxMode.convert(o["bbox"], o["bbox_mode"], BoxMode.XYXY_ABS))
            for o in b["annotations"]
        ]


def test_pictures_are_as_annotated(shapes):
    seen, sizes = set(), []
    for record in load_voc(shapes, "trainval", SHAPE_CLASSES):
        assert (record["height"], record["width"]) == (192, 256)
        assert cv2.imread(record["file_name"]).shape == (192, 256, 3)
        boxes = [o["bbox"] for o in record["annotations"]]
        corners = np.array(boxes)
        xywh = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        iou = pycocotools.mask.iou(xywh, xywh, [0] * len(boxes))
        assert boxes and (iou - np.eye(len(boxes))).max() <= 0.4
        seen |= {o["category_id"] for o in record["annotations"]}
        sizes += [max(b[2] - b[0], b[3] - b[1]) for b in boxes]
    assert seen == set(range(len(SHAPE_CLASSES)))
    assert 14 <= min(sizes) < 32 and 96 < max(sizes) <= 0.55 * 256 + 1


@pytest.mark.parametrize("name", SHAPE_CLASSES)
def test_masks_touch_all_four_sides_of_their_box(name):
    rng = np.random.default_rng(0)
    for side in (16, 40, 130):
        alpha, edge = _mask(rng, name, side)
        assert abs(max(alpha.shape) - side) <= 1.5
        assert (edge <= alpha + 1e-6).all()
        for border in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
            assert border.max() >= 0.25
        hole = alpha[alpha.shape[0] // 2, alpha.shape[1] // 2]
        assert hole == (0 if name == "ring" else 1)


def test_larger_set_begins_with_the_smaller(shapes, tmp_path):
    generate_shapes(str(tmp_path / "larger"), 22, 2, seed=3)
    larger, smaller = digest(tmp_path / "larger"), digest(shapes)
    for number in range(1, 21):
        name = f"JPEGImages/{number:06d}.jpg"
        assert larger[name] == smaller[name]
    with open(tmp_path / "larger" / "shapes.json") as file:
        assert json.load(file)["num_train"] == 22


def test_arguments_out_of_range(tmp_path):
    for arguments in ((0, 1), (1, 0), (1, 1, -1), (1, 1, 0, (63, 64))):
        with pytest.raises(ValueError, match="at least one picture"):
            generate_shapes(str(tmp_path / "set"), *arguments)


def test_masks_are_what_is_seen_of_each_shape(shapes):
    images = os.path.join(shapes, "JPEGImages")
    records = load_coco(os.path.join(shapes, "annotations", "test.json"), images, "shapes_masks")
    MetadataCatalog.pop("shapes_masks")
    for record in records:
        masks = []
        for obj in record["annotations"]:
            masks.append(pycocotools.mask.decode(obj["segmentation"]).astype(bool))
            x0, y0, x1, y1 = map(int, obj["bbox"])
            inside = masks[-1][y0:y1, x0:x1]
            assert masks[-1].shape == (192, 256) and inside.sum() == masks[-1].sum() == obj["area"]
            # A star fills less than a third of its box, and half of it may be covered.
            assert inside.mean() > 0.15
        assert sum(mask.astype(int) for mask in masks).max() == 1
