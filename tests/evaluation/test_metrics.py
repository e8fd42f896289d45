"""Both evaluators against independent implementations, on random detections."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from detectron2.structures import Boxes, BoxMode, Instances

from sparsedet.evaluation import VOCDetectionEvaluator, build_evaluator

CLASSES = ["cat", "traffic light", "dog", "never seen"]
WIDTH, HEIGHT = 200, 150
DATASET = "evaluation_test"


def random_boxes(rng, count):
    """Integer XYXY, at least 12 pixels wide and high."""
    corner = rng.integers(0, (WIDTH - 60, HEIGHT - 60), (count, 2))
    return np.hstack([corner, corner + rng.integers(12, 60, (count, 2))])


def random_dataset(rng, num_images=40):
    dicts = []
    for i in range(num_images):
        count = rng.integers(0, 7)
        annotations = [
            {
                "category_id": int(category),
                "bbox": box.tolist(),
                "bbox_mode": BoxMode.XYXY_ABS,
                "difficult": int(difficult),
            }
            for category, box, difficult in zip(
                rng.integers(0, 3, count), random_boxes(rng, count), rng.random(count) < 0.2
            )
        ]
        dicts.append(
            {
                "file_name": f"{i}.jpg",
                "image_id": f"im{i}",
                "height": HEIGHT,
                "width": WIDTH,
                "annotations": annotations,
            }
        )
    return dicts


def random_detections(rng, dicts):
    """Per image, moved copies of the objects (twice, often) and random boxes; no equal scores."""
    outputs = []
    for image in dicts:
        truth = image["annotations"]
        boxes = [random_boxes(rng, 3)]
        classes = [rng.integers(0, 4, 3)]
        if truth:
            near = np.array([obj["bbox"] for obj in truth] * 2)
            near = near + rng.normal(0, 5, near.shape)
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            boxes.append(near)
            classes.append(np.array([obj["category_id"] for obj in truth] * 2))
        boxes, classes = np.vstack(boxes), np.concatenate(classes)
        keep = rng.random(len(boxes)) < 0.8
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(torch.tensor(boxes[keep], dtype=torch.float32))
        instances.scores = torch.tensor(rng.random(keep.sum()), dtype=torch.float32)
        instances.pred_classes = torch.tensor(classes[keep])
        outputs.append({"instances": instances})
    return outputs


@pytest.fixture
def register():
    """Register dataset dicts as VOC-style data, without a json; forget them afterwards."""

    def do(dicts):
        if DATASET in DatasetCatalog:
            DatasetCatalog.remove(DATASET)
        DatasetCatalog.register(DATASET, lambda: dicts)
        MetadataCatalog.get(DATASET).set(thing_classes=CLASSES)

    yield do
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


def evaluate(evaluator, dicts, outputs):
    evaluator.reset()
    for image, output in zip(dicts, outputs):
        evaluator.process([image], [output])
    return evaluator.evaluate()


def both(dicts, outputs, folder):
    return evaluate(build_evaluator(get_cfg(), DATASET, str(folder)), dicts, outputs)


def write_devkit(folder, dicts, outputs):
    """Annotations and detections as the devkit's files: pixels numbered from 1, inclusive."""
    for image in dicts:
        objects = "".join(
            "<object><name>{}</name><pose>x</pose><truncated>0</truncated>"
            "<difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
            "<ymax>{}</ymax></bndbox></object>".format(
                CLASSES[obj["category_id"]],
                obj["difficult"],
                obj["bbox"][0] + 1,
                obj["bbox"][1] + 1,
                *obj["bbox"][2:],
            )
            for obj in image["annotations"]
        )
        (folder / f"{image['image_id']}.xml").write_text(f"<annotation>{objects}</annotation>")
    (folder / "set.txt").write_text("\n".join(image["image_id"] for image in dicts))
    for class_id, name in enumerate(CLASSES):
        lines = []
        for image, output in zip(dicts, outputs):
            of_class = output["instances"][output["instances"].pred_classes == class_id]
            for box, score in zip(of_class.pred_boxes.tensor.double(), of_class.scores.double()):
                xmin, ymin, xmax, ymax = box.tolist()
                numbers = [score.item(), xmin + 1, ymin + 1, xmax, ymax]
                lines.append(" ".join([image["image_id"], *map(repr, numbers)]))
        (folder / f"{name}.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("seed", range(3))
def test_voc_equals_the_devkit(seed, register, tmp_path):
    rng = np.random.default_rng(seed)
    dicts = random_dataset(rng)
    outputs = random_detections(rng, dicts)
    register(dicts)
    result = evaluate(VOCDetectionEvaluator(DATASET), dicts, outputs)["voc"]

    write_devkit(tmp_path, dicts, outputs)
    area, eleven_point = (
        [
            100
            * voc_eval(
                f"{tmp_path}/{{}}.txt",
                f"{tmp_path}/{{}}.xml",
                f"{tmp_path}/set.txt",
                name,
                use_07_metric=use_07_metric,
            )[2]
            for name in CLASSES[:3]
        ]
        for use_07_metric in (False, True)
    )
    assert 20 < np.mean(area) < 95
    assert [result[f"AP-{name}"] for name in CLASSES[:3]] == pytest.approx(area, abs=1e-9)
    assert result["mAP"] == pytest.approx(np.mean(area), abs=1e-9)
    assert result["mAP_11pt"] == pytest.approx(np.mean(eleven_point), abs=1e-9)
    assert np.isnan(result["AP-never seen"])


def coco_average_precision(dicts, outputs):
    """AP per class and threshold (K, 10) by COCO's definition, without crowds or areas."""
    thresholds = np.linspace(0.5, 0.95, 10)
    table = np.full((len(CLASSES), 10), np.nan)
    for class_id in range(len(CLASSES)):
        num_objects, scores, hits = 0, [], []
        for image, output in zip(dicts, outputs):
            truth = np.array(
                [obj["bbox"] for obj in image["annotations"] if obj["category_id"] == class_id],
                dtype=float,
            ).reshape(-1, 4)
            num_objects += len(truth)
            instances = output["instances"][output["instances"].pred_classes == class_id]
            best = np.argsort(-instances.scores.numpy())[:100]
            boxes = instances.pred_boxes.tensor.double().numpy()[best]
            low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
            high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
            common = np.clip(high - low, 0, None).prod(-1)
            size = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
            iou = common / (size[:, None] + (truth[:, 2:] - truth[:, :2]).prod(-1) - common)
            hit = np.zeros((len(boxes), 10), dtype=bool)
            for t, threshold in enumerate(thresholds):
                free = np.ones(len(truth), dtype=bool)
                for d in range(len(boxes)):
                    candidates = np.where(free, iou[d], -1)
                    if len(truth) and candidates.max() >= threshold:
                        free[candidates.argmax()] = False
                        hit[d, t] = True
            scores.append(instances.scores.numpy()[best])
            hits.append(hit)
        if num_objects == 0:
            continue
        hits = np.vstack(hits)[np.argsort(-np.concatenate(scores))]
        true = hits.cumsum(0)
        precision = true / np.arange(1, len(hits) + 1)[:, None]
        recall = true / num_objects
        for t in range(10):
            table[class_id, t] = np.mean(
                [
                    precision[recall[:, t] >= point, t].max(initial=0)
                    for point in np.linspace(0, 1, 101)
                ]
            )
    return 100 * table


def test_coco_equals_its_definition(register, tmp_path):
    rng = np.random.default_rng(0)
    dicts = random_dataset(rng)
    outputs = random_detections(rng, dicts)
    register(dicts)
    result = both(dicts, outputs, tmp_path)["bbox"]
    expected = coco_average_precision(dicts, outputs)
    assert result["AP"] == pytest.approx(np.nanmean(expected), abs=1e-6)
    assert result["AP50"] == pytest.approx(np.nanmean(expected[:, 0]), abs=1e-6)
    assert result["AP75"] == pytest.approx(np.nanmean(expected[:, 5]), abs=1e-6)
    assert result["AP-traffic light"] == pytest.approx(np.mean(expected[1]), abs=1e-6)


def test_coco_counts_the_hundred_best_detections(register, tmp_path):
    dicts = random_dataset(np.random.default_rng(0), 1)
    box = {"category_id": 0, "bbox": [10, 10, 50, 50], "bbox_mode": BoxMode.XYXY_ABS}
    dicts[0]["annotations"] = [box]
    register(dicts)
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([[90.0, 90, 120, 120]] * 100 + [[10, 10, 50, 50]]))
    instances.scores = torch.linspace(1, 0.1, 101)
    instances.pred_classes = torch.zeros(101, dtype=torch.long)
    result = both(dicts, [{"instances": instances}], tmp_path)
    assert result["bbox"]["AP50"] == 0
    assert result["voc"]["mAP"] == pytest.approx(100 / 101)


def test_json_follows_the_dataset(register, tmp_path):
    """A second evaluation of a changed dataset, same name and folder, sees the change."""
    rng = np.random.default_rng(0)
    for num_images in (10, 5):
        dicts = random_dataset(rng, num_images)
        register(dicts)
        perfect = [truth_as_output(image) for image in dicts]
        result = both(dicts, perfect, tmp_path / "same")
        assert result["bbox"]["AP"] == pytest.approx(100)
        assert result["voc"]["mAP"] == pytest.approx(100)


def truth_as_output(image):
    instances = Instances((HEIGHT, WIDTH))
    boxes = [obj["bbox"] for obj in image["annotations"]]
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.ones(len(boxes))
    instances.pred_classes = torch.tensor(
        [obj["category_id"] for obj in image["annotations"]], dtype=torch.long
    )
    return {"instances": instances}


def test_nothing_detected(register, tmp_path):
    dicts = random_dataset(np.random.default_rng(0), 5)
    register(dicts)
    nothing = [truth_as_output({"annotations": []})] * 5
    result = both(dicts, nothing, tmp_path)
    assert result["bbox"]["AP"] == result["bbox"]["AP50"] == 0
    assert result["bbox"]["AP-cat"] == 0 and np.isnan(result["bbox"]["AP-never seen"])
    assert result["voc"]["mAP"] == 0 and result["voc"]["mAP_11pt"] == 0


def test_nothing_to_detect(register, tmp_path):
    dicts = random_dataset(np.random.default_rng(0), 2)
    for image in dicts:
        image["annotations"] = []
    register(dicts)
    found = random_detections(np.random.default_rng(1), dicts)
    result = both(dicts, found, tmp_path)
    assert np.isnan(result["voc"]["mAP"]) and np.isnan(result["bbox"]["AP"])


def test_coco_json_with_crowd(register, tmp_path):
    """A dataset with its own json, bare as it is, keeps it; a crowd makes no false positive."""
    from detectron2.data.datasets import register_coco_instances

    truth = {
        "images": [{"id": 7, "file_name": "7.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "traffic light"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [10, 10, 40, 30]},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [100, 20, 60, 60], "area": 3600,
             "iscrowd": 1},
        ],
    }  # fmt: skip
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    register_coco_instances(DATASET, {}, str(path), str(tmp_path))
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([[100.0, 20, 160, 80], [10, 10, 50, 40]]))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_classes = torch.tensor([1, 1])
    dicts = DatasetCatalog.get(DATASET)
    result = both(dicts, [{"instances": instances}], tmp_path / "output")
    assert result["bbox"]["AP"] == pytest.approx(100)
    assert result["voc"]["mAP"] == pytest.approx(100)
    assert result["voc"]["AP-traffic light"] == pytest.approx(100)
    assert MetadataCatalog.get(DATASET).json_file == str(path)
