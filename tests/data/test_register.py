"""Datasets named in the config: catalogs, metadata, and bad entries."""

import json
import os
import pickle

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from sparsedet import add_sparsedet_config
from sparsedet.data import load_coco, register_datasets
from sparsedet.errors import InputError

VOC = {"format": "voc", "root": "birds", "split": "train", "classes": ["robin", "wren"]}
COCO = {"format": "coco", "json": "birds.json", "images": "images"}
CONTENT = {
    "images": [{"id": 7, "file_name": "a.jpg", "height": 30, "width": 40}],
    "categories": [{"id": 9, "name": "wren"}, {"id": 3, "name": "robin"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    ],
}


@pytest.fixture(autouse=True)
def catalogs(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def config(train=(), **entries):
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.DATASETS.REGISTER = CfgNode(entries, new_allowed=True)
    cfg.DATASETS.TRAIN = train
    return cfg


def write_coco(tmp_path, content=CONTENT):
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "a.jpg").touch()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "birds.json").write_text(text)


def error(cfg):
    with pytest.raises(InputError) as caught:
        register_datasets(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_voc_is_registered_before_its_folder_exists(tmp_path):
    register_datasets(config(["birds"], birds=dict(VOC)))
    metadata = MetadataCatalog.get("birds")
    assert metadata.thing_classes == ["robin", "wren"]
    assert metadata.dirname == str(tmp_path / "birds") and metadata.split == "train"
    with pytest.raises(InputError, match="birds: no such folder"):
        DatasetCatalog.get("birds")


def test_same_again_changes_nothing_and_another_replaces():
    register_datasets(config(birds=dict(VOC)))
    first, metadata = DatasetCatalog["birds"], MetadataCatalog.get("birds")
    register_datasets(config(birds=dict(VOC)))
    assert DatasetCatalog["birds"] is first and MetadataCatalog.get("birds") is metadata
    register_datasets(config(birds={**VOC, "classes": ["owl"]}))
    assert MetadataCatalog.get("birds").thing_classes == ["owl"]


def test_datasets_of_others_are_not_replaced():
    assert error(config(voc_2007_test=dict(VOC))).startswith("DATASETS.REGISTER.voc_2007_test:")


@pytest.mark.parametrize(
    ("entry", "key", "reason"),
    [
        ({**VOC, "format": "yoda"}, ".format", "'yoda'"),
        ({"root": "birds"}, ".format", "None"),
        ({**VOC, "spilt": "train"}, ".spilt", "no such field"),
        ({"format": "voc", "split": "train"}, ".root", "missing"),
        ({"format": "yolo", "root": "birds"}, ".split", "missing"),
        ({**VOC, "on_error": "panic"}, ".on_error", "drop or stop"),
        ({**VOC, "split": {"train": 80}}, ".split", "{train: 0.8}"),
        ({**VOC, "split": {"train": 0.8, "test": 0.2}}, ".split", "{train: 0.8}"),
        ({**VOC, "split": {"val": 0.2}}, ".split", "{test: 0.2}"),
        ({**VOC, "split": 1.5}, ".split", "1.5"),
        ({**COCO, "split": "train"}, ".split", "expected {train: 0.8}"),
        ({k: v for k, v in COCO.items() if k != "images"}, ".images", "missing"),
        ({**VOC, "split": 2007}, ".split", "2007"),
        ({**VOC, "classes": []}, ".classes", "list"),
        ({**VOC, "classes": "robin"}, ".classes", "list"),
        ({**VOC, "classes": ["robin", 3]}, ".classes", "3"),
        ({**VOC, "classes": ["robin", "robin"]}, ".classes", "more than once"),
        ("birds", "", "expected fields"),
    ],
)
def test_bad_entry_is_named_by_its_key(entry, key, reason):
    message = error(config(birds=entry))
    assert message.startswith(f"DATASETS.REGISTER.birds{key}: ") and reason in message


def test_unknown_dataset_is_named_with_close_matches():
    message = error(config(["birds_tain"], birds_train=dict(VOC)))
    assert message.startswith("DATASETS.TRAIN: 'birds_tain'") and "birds_train" in message


def test_coco_classes_are_in_the_order_of_ids_and_stay_in_the_config(tmp_path):
    write_coco(tmp_path)
    cfg = config(["birds"], birds=dict(COCO))
    register_datasets(cfg)
    assert MetadataCatalog.get("birds").thing_classes == ["robin", "wren"]
    assert MetadataCatalog.get("birds").evaluator_type == "coco"
    (record,) = DatasetCatalog.get("birds")
    assert record["file_name"] == str(tmp_path / "images" / "a.jpg")
    assert [a["category_id"] for a in record["annotations"]] == [1]

    # The saved config names the classes where there is no dataset.
    saved = CfgNode.load_cfg(cfg.dump())
    DatasetCatalog.remove("birds")
    os.remove(tmp_path / "birds.json")
    register_datasets(saved)
    assert MetadataCatalog.get("birds").thing_classes == ["robin", "wren"]


def test_coco_without_file_or_classes_still_registers():
    register_datasets(config(["birds"], birds=dict(COCO)))
    assert not hasattr(MetadataCatalog.get("birds"), "thing_classes")
    with pytest.raises(InputError, match="birds.json: no such annotation file"):
        DatasetCatalog.get("birds")


def test_frozen_config_is_left_alone(tmp_path):
    write_coco(tmp_path)
    cfg = config(birds=dict(COCO))
    cfg.freeze()
    register_datasets(cfg)
    assert "classes" not in cfg.DATASETS.REGISTER.birds


def test_coco_classes_in_another_order_are_matched_by_name(tmp_path):
    write_coco(tmp_path)
    register_datasets(config(birds={**COCO, "classes": ["wren", "robin"]}))
    (record,) = DatasetCatalog.get("birds")
    assert [a["category_id"] for a in record["annotations"]] == [0]
    assert MetadataCatalog.get("birds").thing_classes == ["wren", "robin"]


def test_coco_classes_that_differ_from_the_file(tmp_path):
    write_coco(tmp_path)
    register_datasets(config(birds={**COCO, "classes": ["wren", "owl"]}))
    with pytest.raises(InputError, match="are robin, wren, but .*birds.classes is wren, owl"):
        DatasetCatalog.get("birds")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as json"),
        ([], "not a COCO file"),
        ({**CONTENT, "categories": []}, "no 'categories'"),
        ({k: v for k, v in CONTENT.items() if k != "images"}, "no 'images'"),
        ({**CONTENT, "images": [{"id": 7, "file_name": "a.jpg"}]}, "no 'height'"),
        ({**CONTENT, "annotations": [{**CONTENT["annotations"][0], "category_id": 5}]}, "5"),
        ({**CONTENT, "annotations": [{**CONTENT["annotations"][0], "bbox": []}]}, "bbox"),
    ],
)
def test_bad_coco_json_is_named(tmp_path, content, reason):
    write_coco(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_coco(str(tmp_path / "birds.json"), str(tmp_path / "images"), "birds")
    MetadataCatalog.pop("birds", None)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "birds.json")) and reason in message
    assert "\n" not in message


def test_coco_without_its_image_folder(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(InputError, match="no such image folder"):
        load_coco(str(tmp_path / "birds.json"), str(tmp_path / "nowhere"), "birds")


def test_registered_loaders_can_be_sent_to_other_processes():
    register_datasets(config(birds=dict(VOC)))
    assert pickle.loads(pickle.dumps(DatasetCatalog["birds"])) == DatasetCatalog["birds"]
