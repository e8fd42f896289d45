"""Categories of one name in a COCO json, as Roboflow exports a project called like its class."""

import json

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from sparsedet.config import add_sparsedet_config
from sparsedet.data import register_datasets
from sparsedet.detection.config import load_config

NAME = "equal_names_test"


@pytest.fixture
def cfg(tmp_path):
    rows = [(0, "raccoon", "none"), (1, "raccoon", "raccoon"), (2, "cat", "raccoon")]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": i, "name": name, "supercategory": s} for i, name, s in rows],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [i, 2, 5, 5], "iscrowd": 0}
            for i in (0, 1, 2)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "a.png").touch()
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    entry = {"format": "coco", "json": str(tmp_path / "truth.json"), "images": str(tmp_path)}
    cfg.DATASETS.REGISTER[NAME] = CfgNode(entry)
    yield cfg
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_they_are_one_class_and_the_saved_config_is_read_back(cfg, tmp_path):
    register_datasets(cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    saved = load_config(tmp_path / "config.yaml")
    assert saved.DATASETS.REGISTER[NAME]["classes"] == ["raccoon", "cat"]
    for config in (cfg, saved):
        register_datasets(config)
        (image,) = DatasetCatalog.get(NAME)
        assert [obj["category_id"] for obj in image["annotations"]] == [0, 0, 1]
        assert MetadataCatalog.get(NAME).thing_classes == ["raccoon", "cat"]
