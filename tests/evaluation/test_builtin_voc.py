"""detectron2's own VOC datasets keep no `difficult`; the evaluator takes it from their XML."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.structures import Boxes, Instances

from sparsedet.data import SHAPE_CLASSES, generate_shapes, load_voc
from sparsedet.evaluation import VOCDetectionEvaluator

NAME = "evaluation_test_builtin_voc"


@pytest.fixture
def folder(tmp_path):
    """A VOC-style folder in which the first object of every image is difficult."""
    root = tmp_path / "shapes"
    generate_shapes(str(root), num_train=1, num_test=12, image_size=(128, 96))
    for path in (root / "Annotations").iterdir():
        text = path.read_text()
        path.write_text(text.replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1))
    register_pascal_voc(NAME, str(root), "test", 2012, list(SHAPE_CLASSES))
    MetadataCatalog.get(NAME).evaluator_type = "pascal_voc"
    yield root
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_difficult_objects_do_not_count(folder):
    evaluator = VOCDetectionEvaluator(NAME)
    for record in load_voc(str(folder), "test", SHAPE_CLASSES):
        found = [obj for obj in record["annotations"] if not obj["difficult"]]
        assert len(found) == len(record["annotations"]) - 1
        instances = Instances((96, 128))
        boxes = torch.tensor([obj["bbox"] for obj in found], dtype=torch.float32).reshape(-1, 4)
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.ones(len(found))
        instances.pred_classes = torch.tensor([obj["category_id"] for obj in found], dtype=int)
        evaluator.process([record], [{"instances": instances}])
    assert evaluator.evaluate()["voc"]["mAP"] == pytest.approx(100)
