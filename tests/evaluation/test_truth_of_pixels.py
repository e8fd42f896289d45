"""Truth in pictures: labels are numbers, never colours; what is odd is refused, never counted."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sparsedet.errors import InputError
from sparsedet.evaluation.panoptic import PanopticEvaluator
from sparsedet.evaluation.semantic import SemanticEvaluator
from sparsedet.images import read_labels

NAME = "pixels_test"
LABELS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)


@pytest.fixture
def evaluate(tmp_path):
    """Metrics of a prediction that is all of class 1 against a picture of labels."""
    path = tmp_path / "truth.png"
    record = {"file_name": "a.jpg", "image_id": 0, "sem_seg_file_name": str(path)}
    DatasetCatalog.register(NAME, lambda: [record])
    MetadataCatalog.get(NAME).set(stuff_classes=["a", "b", "c"], ignore_label=255)

    def run(picture):
        picture.save(path)
        evaluator = SemanticEvaluator(NAME, str(tmp_path), 3)
        scores = torch.zeros(3, 2, 3)
        scores[1] = 1
        evaluator.process([record], [{"sem_seg": scores}])
        return evaluator.evaluate()["sem_seg"]

    yield run
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def with_palette(labels):
    picture = Image.fromarray(labels, "P")
    picture.putpalette([7, 200, 30] * 256)
    return picture


def as_colours(labels):
    return Image.fromarray(np.stack([labels] * 3, axis=2))


@pytest.mark.parametrize("make", [Image.fromarray, with_palette, as_colours])
def test_labels_are_numbers_in_every_kind_of_picture(tmp_path, evaluate, make):
    make(LABELS).save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_labels(str(tmp_path / "labels.png")), LABELS)
    # 2 of the 5 pixels that count are right: IoU 2/5 of class 1, 0 of the others
    result = evaluate(make(LABELS))
    assert result["IoU-b"] == pytest.approx(40) and result["mIoU"] == pytest.approx(40 / 3)
    assert result["pACC"] == pytest.approx(40)


@pytest.mark.parametrize(
    "labels",
    [LABELS.clip(0, 3), LABELS.clip(0, 5), LABELS[:, :2], LABELS.astype(np.uint16) * 256],
)
def test_other_labels_are_refused_and_not_counted_as_something(evaluate, labels):
    with pytest.raises(InputError, match=r"truth\.png: its labels are not those of 3 classes"):
        evaluate(Image.fromarray(labels))


def test_colours_are_no_labels(evaluate):
    colours = np.random.default_rng(0).integers(0, 3, (2, 3, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"truth\.png: .* it has colours"):
        evaluate(Image.fromarray(colours))


def truth(**changes):
    segment = {"id": 1, "category_id": 5, "iscrowd": 0}
    row = {"image_id": 0, "file_name": "0.png", "segments_info": [segment]}
    content = {"annotations": [row], "categories": [{"id": 5, "name": "cup", "isthing": 1}]}
    for target in (segment, row, content):
        target.update({key: value for key, value in changes.items() if key in target})
    return content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotations": 3}, "no list of 'annotations'"),
        ({"image_id": [0]}, "'image_id' is no id"),
        ({"file_name": None}, "'file_name' is missing"),
        ({"segments_info": None}, "no list of 'segments_info'"),
        ({"category_id": 7}, "of no category"),
        ({"category_id": [5]}, "'category_id' is missing or of another kind"),
        ({"iscrowd": "no"}, "'iscrowd'"),
        ({"segments_info": [{"id": 1, "category_id": 5}] * 2}, "have one id"),
        ({"categories": [{"id": 5, "name": "cup", "isthing": "yes"}]}, "'isthing'"),
        ({"categories": [[]]}, "'id' is missing"),
    ],
)
def test_panoptic_truth_is_checked_before_it_counts(tmp_path, changes, reason):
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(truth(**changes)))
    metadata = {"panoptic_json": str(path), "panoptic_root": str(tmp_path)}
    MetadataCatalog.get(NAME).set(**metadata, thing_classes=["cup"], stuff_classes=["things"])
    try:
        with pytest.raises(InputError, match=rf"panoptic\.json: not a COCO pan.*{reason}"):
            PanopticEvaluator(NAME)
    finally:
        MetadataCatalog.remove(NAME)
