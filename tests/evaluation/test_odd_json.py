"""COCO json as people have it: a perfect detector gets 100, one that finds nothing 0."""

import copy
import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparsedet.config import add_sparsedet_config
from sparsedet.data import register_datasets
from sparsedet.evaluation import build_evaluator

NAME = "odd_json_test"
NAMES = ["circle", "square", "star"]


def content(num_images=8, seed=0):
    """Small, medium and large objects of three classes; categories with ids that have gaps."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 400, "height": 300})
        for _ in range(rng.integers(1, 5)):
            width, height = rng.integers(10, 220, 2).tolist()
            x, y = rng.integers(0, (400 - width, 300 - height)).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([3, 5, 9])),
                    "bbox": [x, y, width, height],
                    "area": 0.4 * width * height,  # of a mask
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in zip((3, 5, 9), NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def evaluate(tmp_path):
    """Both evaluators' numbers for what `detect` finds of a json's content."""

    def run(truth, detect, class_names=None):
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        for image in truth["images"]:
            (tmp_path / image["file_name"]).touch()
        cfg = get_cfg()
        add_sparsedet_config(cfg)
        entry = {"format": "coco", "json": str(tmp_path / "truth.json"), "images": str(tmp_path)}
        cfg.DATASETS.REGISTER[NAME] = entry
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (NAME,)
        register_datasets(cfg)
        return evaluate_registered(tmp_path, detect, class_names)

    yield run
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


def evaluate_registered(folder, detect, class_names=None):
    evaluator = build_evaluator(get_cfg(), NAME, str(folder / "found"), class_names)
    evaluator.reset()
    for image in DatasetCatalog.get(NAME):
        evaluator.process([image], [{"instances": detect(image)}])
    return evaluator.evaluate()


def perfect(image):
    boxes = [
        BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYXY_ABS)
        for obj in image["annotations"]
    ]
    return instances(boxes, np.ones(len(boxes)), [o["category_id"] for o in image["annotations"]])


def nothing(image):
    return instances([], [], [])


def noisy(image):
    """Most of the objects, moved, some twice, and false ones; no equal scores."""
    rng = np.random.default_rng(int(image["image_id"]))
    found = perfect(image)
    boxes = found.pred_boxes.tensor.double().numpy().repeat(2, axis=0)
    boxes = boxes + rng.normal(0, 6, boxes.shape)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
    classes = found.pred_classes.numpy().repeat(2)
    false = rng.integers(0, 200, (3, 2))
    boxes = np.vstack([boxes, np.hstack([false, false + 40])])
    classes = np.concatenate([classes, rng.integers(0, 3, 3)])
    return instances(boxes, rng.random(len(boxes)), classes)


def instances(boxes, scores, classes):
    boxes = torch.as_tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    return Instances(
        (300, 400),
        pred_boxes=Boxes(boxes),
        scores=torch.as_tensor(np.array(scores), dtype=torch.float32),
        pred_classes=torch.as_tensor(np.array(classes), dtype=torch.long),
    )


def ids(new):
    def change(truth):
        for number, annotation in enumerate(truth["annotations"]):
            annotation["id"] = new(number)

    return change


def no_ids(truth):
    for annotation in truth["annotations"]:
        del annotation["id"]


def bare(truth):
    """As annotation tools leave it."""
    for annotation in truth["annotations"]:
        del annotation["id"], annotation["area"], annotation["iscrowd"]


def text_image_ids(truth):
    for row in truth["images"]:
        row["id"] = str(row["id"])
    for row in truth["annotations"]:
        row["image_id"] = str(row["image_id"])


def large_image_ids(truth):
    for row in truth["images"]:
        row["id"] += 2**53
    for row in truth["annotations"]:
        row["image_id"] += 2**53


def image_id_zero(truth):
    for row in truth["images"]:
        row["id"] -= 1
    for row in truth["annotations"]:
        row["image_id"] -= 1


ODD = {
    "ids from 0": ids(lambda number: number),
    "all ids 0": ids(lambda number: 0),
    "ids as texts": ids(str),
    "negative ids": ids(lambda number: -number),
    "ids twice": ids(lambda number: 1 + number // 2),
    "no ids": no_ids,
    "bare": bare,
    "image ids as texts": text_image_ids,
    "image id 0": image_id_zero,
    "large image ids": large_image_ids,
}


@pytest.mark.parametrize("kind", ODD)
def test_ids_do_not_change_the_numbers(evaluate, kind):
    truth = content()
    expected = evaluate(truth, noisy)
    odd = copy.deepcopy(truth)
    ODD[kind](odd)
    for detect, value in ((perfect, 100), (nothing, 0)):
        result = evaluate(odd, detect)
        for key in ("AP", "AP50", "AP75", *(f"AP-{name}" for name in NAMES)):
            assert result["bbox"][key] == pytest.approx(value), key
        for key in ("mAP", "mAP_11pt"):
            assert result["voc"][key] == pytest.approx(value)
    if "image id" not in kind:  # noise follows it
        found = evaluate(odd, noisy)
        for key in ("AP", "AP50", "AP75"):
            assert found["bbox"][key] == pytest.approx(expected["bbox"][key], abs=1e-9)
        assert 5 < found["bbox"]["AP"] < 95


def official(path, results):
    """What pycocotools makes of the json itself, and of the file of results."""
    truth = COCO(str(path))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats[:6]


@pytest.mark.parametrize("registered_by", ["config", "detectron2"])
def test_the_numbers_are_those_of_the_official_tool(evaluate, tmp_path, registered_by):
    """With areas of masks, by which objects are small, medium and large; and one crowd."""
    truth = content(20)
    truth["annotations"][0]["iscrowd"] = 1
    result = evaluate(truth, noisy)
    if registered_by == "detectron2":
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.remove(NAME)
        register_coco_instances(NAME, {}, str(tmp_path / "truth.json"), str(tmp_path))
        result = evaluate_registered(tmp_path, noisy)
    found = tmp_path / "found" / "coco_instances_results.json"
    expected = official(tmp_path / "truth.json", found)
    assert [result["bbox"][key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")] == (
        pytest.approx(expected, abs=1e-3)
    )
    boxes = 0.4 * np.array([np.prod(a["bbox"][2:]) for a in truth["annotations"]])
    assert len({(a < 32**2, a < 96**2) for a in boxes}) == 3  # there are all three


def test_nothing_to_find_is_nan(evaluate):
    empty, crowds = {**content(), "annotations": []}, content()
    for annotation in crowds["annotations"]:
        annotation["iscrowd"] = 1
    for truth in (empty, crowds):
        for detect in (perfect, nothing, noisy):
            result = evaluate(truth, detect)
            assert np.isnan(result["bbox"]["AP"]) and np.isnan(result["voc"]["mAP"])
            assert np.isnan(result["bbox"]["AP-star"]) and np.isnan(result["voc"]["AP-star"])


def test_a_class_without_objects_is_nan_and_left_out(evaluate):
    truth = content()
    truth["categories"].append({"id": 20, "name": "absent"})
    result = evaluate(truth, perfect)
    assert result["bbox"]["AP"] == result["voc"]["mAP"] == pytest.approx(100)
    assert np.isnan(result["bbox"]["AP-absent"]) and np.isnan(result["voc"]["AP-absent"])


def test_results_of_classes_of_one_name_stand_side_by_side(evaluate, tmp_path):
    """In a dataset that was not registered from a config, which would make them one class."""
    boxes = [{"bbox": [i * 50, 0, 30, 30], "bbox_mode": BoxMode.XYWH_ABS} for i in range(3)]
    annotations = [{**box, "category_id": i} for i, box in enumerate(boxes)]
    dicts = [{"image_id": "a", "file_name": "a.png", "annotations": annotations}]
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).set(thing_classes=["dog", "cat", "dog"])

    def first_two(image):
        return perfect(image)[:2]

    for task, values in evaluate_registered(tmp_path, first_two).items():
        assert values["AP-dog (0)"] == values["AP-cat"] == pytest.approx(100), task
        assert values["AP-dog (2)"] == 0
