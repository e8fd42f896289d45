"""Masks, keypoints and stuff, as the mapper gives them to a model that learns them."""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from sparsedet.data import CheckedDatasetMapper
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.evaluation import PanopticEvaluator

WIDTH, HEIGHT = 40, 30
SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]


def objects(count):
    """Squares, each with a mask and three keypoints, in one image."""
    return [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [5, 5, 10, 10],
            "area": 100,
            "segmentation": [SQUARE],
            "keypoints": [5, 9, 2, 14, 9, 2, 9, 5, 1],
        }
        for i in range(count)
    ]


@pytest.fixture
def configured(tmp_path):
    """Write a data set of these annotations, and register it; a config that trains on it."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))

    def write(annotations, stuff=None, **model):
        category = {"id": 1, "name": "kite", "keypoints": ["left_end", "right_end", "top"]}
        category["skeleton"] = [[1, 3], [3, 2], [1, 9]]
        image = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
        content = {"images": [image], "categories": [category], "annotations": annotations}
        (tmp_path / "truth.json").write_text(json.dumps(content))
        entry = {"format": "coco", "json": str(tmp_path / "truth.json"), "images": str(tmp_path)}
        config = {
            "MODEL": {"DEVICE": "cpu", "ROI_HEADS": {"NUM_CLASSES": 1}, **model},
            "INPUT": {"MIN_SIZE_TRAIN": [HEIGHT], "RANDOM_FLIP": "none"},
            "DATASETS": {"TRAIN": ["learned"], "REGISTER": {"learned": {**entry, **(stuff or {})}}},
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        return load_config(tmp_path / "config.yaml")

    yield write
    if "learned" in DatasetCatalog:
        DatasetCatalog.remove("learned")
        MetadataCatalog.remove("learned")


def mapped(cfg, train=True):
    (record,) = DatasetCatalog.get("learned")
    return CheckedDatasetMapper(cfg, train)(record)


def test_masks_and_keypoints_are_there_where_the_config_asks(configured):
    cfg = configured(objects(2), MASK_ON=True, KEYPOINT_ON=True)
    instances = mapped(cfg)["instances"]
    assert instances.gt_masks.area().tolist() == [100, 100]
    expected = torch.tensor([[5.5, 9.5, 2], [14.5, 9.5, 2], [9.5, 5.5, 1]])
    torch.testing.assert_close(instances.gt_keypoints.tensor, expected.expand(2, 3, 3))
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = False
    assert set(mapped(cfg)["instances"].get_fields()) == {"gt_boxes", "gt_classes"}


def test_a_flip_exchanges_left_and_right(configured):
    cfg = configured(objects(1), KEYPOINT_ON=True)
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    DatasetCatalog.get("learned")
    metadata = MetadataCatalog.get("learned")
    assert metadata.keypoint_flip_map == [("left_end", "right_end")]
    assert [line[:2] for line in metadata.keypoint_connection_rules] == [
        ("left_end", "top"),
        ("top", "right_end"),
    ]
    assert CheckedDatasetMapper(cfg, True).keypoint_hflip_indices == [1, 0, 2]


def test_an_object_without_a_mask_is_not_learned(configured):
    rows = objects(3)
    rows[0].pop("segmentation")
    rows[1]["segmentation"] = [[1, 2, 3]]
    cfg = configured(rows, MASK_ON=True)
    assert len(mapped(cfg)["instances"]) == 1
    cfg.MODEL.MASK_ON = False
    assert len(mapped(cfg)["instances"]) == 3


def test_an_object_without_keypoints_has_none_that_are_labelled(configured):
    rows = objects(2)
    rows[0].pop("keypoints")
    keypoints = mapped(configured(rows, KEYPOINT_ON=True))["instances"].gt_keypoints.tensor
    assert keypoints[0].eq(0).all() and keypoints[1, :, 2].tolist() == [2, 2, 1]


def test_what_does_not_fit_is_said(configured, tmp_path):
    rows = objects(1)
    rows[0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT - 9, 9]}
    cfg = configured(rows, MASK_ON=True)
    with pytest.raises(InputError, match="a.png: a mask in RLE; set INPUT.MASK_FORMAT to bitmask"):
        mapped(cfg)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    assert mapped(cfg)["instances"].gt_masks.tensor.sum() == 9
    rows = objects(1)
    rows[0]["keypoints"] = [1, 2, 2]
    with pytest.raises(InputError, match="a.png: an object of 1 keypoints, where .* names 3"):
        mapped(configured(rows, KEYPOINT_ON=True))


def test_evaluation_needs_no_training_set(configured):
    cfg = configured(objects(1), KEYPOINT_ON=True)
    cfg.DATASETS.TRAIN = ()
    assert mapped(cfg, train=False)["image"].shape[0] == 3


def stuff(folder):
    return {"sem_seg_root": str(folder / "stuff"), "stuff_classes": ["things", "sky"]}


def test_labels_of_stuff(configured, tmp_path):
    (tmp_path / "stuff").mkdir()
    cfg = configured(objects(1), stuff(tmp_path))
    with pytest.raises(InputError, match="stuff/a.png: no such file, for the labels of .*a.png"):
        DatasetCatalog.get("learned")
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:10] = 1
    cv2.imwrite(str(tmp_path / "stuff" / "a.png"), labels)
    assert mapped(cfg)["sem_seg"].unique(return_counts=True)[1].tolist() == [800, 400]
    assert MetadataCatalog.get("learned").stuff_classes == ["things", "sky"]


def test_fields_of_stuff_belong_together(configured, tmp_path):
    for field, other in (
        ("sem_seg_root", "stuff_classes"),
        ("panoptic_json", "panoptic_root"),
        ("panoptic_root", "panoptic_json"),
    ):
        with pytest.raises(InputError, match=rf"learned.{other}: missing; {field} needs it"):
            configured(objects(1), {field: "somewhere"})


def test_names_of_panoptic_categories_must_agree(configured, tmp_path):
    (tmp_path / "stuff").mkdir()
    cv2.imwrite(str(tmp_path / "stuff" / "a.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    path = tmp_path / "panoptic.json"
    fields = {"panoptic_json": str(path), "panoptic_root": str(tmp_path)}
    rows = [{"id": 4, "name": "kite", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]
    path.write_text(json.dumps({"annotations": [], "categories": rows}))
    configured(objects(1), {**stuff(tmp_path), **fields})
    evaluator = PanopticEvaluator("learned")
    assert evaluator._category({"isthing": True, "category_id": 0}) == 4
    assert evaluator._category({"isthing": False, "category_id": 1}) == 9
    rows[1]["name"] = "sea"
    path.write_text(json.dumps({"annotations": [], "categories": rows}))
    with pytest.raises(InputError, match="stuff_classes of learned are things, sky, but .* sea"):
        PanopticEvaluator("learned")
    path.write_text("{}")
    with pytest.raises(InputError, match="panoptic.json: not a COCO panoptic file"):
        PanopticEvaluator("learned")
