"""Tables, plots and annotated pictures."""

import itertools
import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from sparsedet.drawing import draw_boxes
from sparsedet.errors import InputError
from sparsedet.reports import tradeoff
from sparsedet.reports.pictures import draw_detections
from sparsedet.reports.tables import markdown_table
from sparsedet.reports.tradeoff import plot_tradeoff
from sparsedet.reports.training import plot_training_curves, read_metrics

RESULTS = {
    "dense": {"params": 137.06e6, "multiply_adds": 226e9, "ms": 1400,
              "AP": 40, "AP50": 68, "voc_mAP": 67},
    "sparse": {"params": 11e6, "multiply_adds": 59e9, "ms": 470, "AP": 40.5, "AP50": 67.5},
}  # fmt: skip


def test_table():
    assert markdown_table(RESULTS).splitlines() == [
        "| model   |      parameters |   multiply-adds |   ms per image |       COCO AP |"
        "          AP50 |   VOC mAP |",
        "|:--------|----------------:|----------------:|---------------:|--------------:|"
        "--------------:|----------:|",
        "| dense   |        137.06 M |        226.00 G |         1400.0 |         40.00 |"
        "         68.00 |     67.00 |",
        "| sparse  | 11.00 M (12.5x) |  59.00 G (3.8x) |   470.0 (3.0x) | 40.50 (+0.50) |"
        " 67.50 (-0.50) |       n/a |",
    ]


def write_metrics(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_metrics_of_a_resumed_run(tmp_path):
    path = tmp_path / "metrics.json"
    records = [{"iteration": i, "total_loss": 1.0} for i in (19, 39, 49, 59, 79)]
    records += [{"iteration": i, "total_loss": 0.5} for i in (49, 69)]
    write_metrics(path, records)
    with open(path, "a") as file:
        file.write('{"iteration": 89, "tot')
    assert [(r["iteration"], r["total_loss"]) for r in read_metrics(str(path))] == [
        (19, 1.0),
        (39, 1.0),
        (49, 0.5),
        (69, 0.5),
    ]


def test_metrics_that_are_not(tmp_path):
    (tmp_path / "empty.json").touch()
    (tmp_path / "binary.json").write_bytes(b"\x89PNG\xff")
    for name in ("missing.json", "empty.json", "binary.json"):
        with pytest.raises(InputError, match=name) as error:
            read_metrics(str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("evaluated, width", [(False, 825), (True, 1650)])
def test_training_curves(evaluated, width, tmp_path):
    files = {}
    for name in ("dense", "sparse"):
        records = [{"iteration": i, "total_loss": 40 / (i + 1)} for i in range(19, 200, 20)]
        if evaluated:
            records[-1]["bbox/AP50"] = 80.0
        files[name] = write_metrics(tmp_path / f"{name}.json", records)
    plot_training_curves(files, str(tmp_path / "curves.png"))
    assert Image.open(tmp_path / "curves.png").size == (width, 600)
    assert len(list(tmp_path.iterdir())) == 3


def test_tradeoff_writes_a_picture(tmp_path):
    plot_tradeoff({**RESULTS, "empty": {**RESULTS["dense"], "AP50": float("nan")}},
                  str(tmp_path / "tradeoff.png"))  # fmt: skip
    assert Image.open(tmp_path / "tradeoff.png").size == (1050, 720)


def test_tradeoff_labels_do_not_overlap(tmp_path, monkeypatch):
    """Five models almost on one spot, and one at the right edge."""
    rng = np.random.default_rng(0)
    results = {
        f"model {i}": {"params": 1e7 * (1 + i), "ms": 500 + rng.random() * 50, "AP50": 60 + i / 10}
        for i in range(5)
    }
    results["reference"] = RESULTS["dense"]
    figures = []
    monkeypatch.setattr(tradeoff, "save_figure", lambda figure, path: figures.append(figure))
    plot_tradeoff(results, str(tmp_path / "tradeoff.png"))
    figures[0].draw_without_rendering()
    axes = figures[0].axes[0]
    labels = [text for text in axes.texts if text.get_text()]
    assert [label.get_text().split("\n")[0] for label in labels] == list(results)
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


BLUE = (200, 30, 10)


def blue_picture(width, height):
    return np.full((height, width, 3), BLUE, dtype=np.uint8)


def detected(boxes, scores, classes, image):
    return Instances(
        image.shape[:2],
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes, dtype=torch.long),
    )


@pytest.mark.parametrize(
    "size, scale", [((160, 120), 4.0), ((256, 192), 2.5), ((640, 200), 1.0), ((700, 1100), 1.0)]
)
def test_detections_beside_ground_truth(size, scale):
    image = blue_picture(*size)
    truth = [{"bbox": [40, 60, 80, 50], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}]
    instances = detected([[10.0, 50, 50, 100], [8, 52, 50, 99]], [0.3, 0.9], [0, 1], image)
    result = draw_detections(image, instances, truth, ["cat", "dog"])

    width = round(size[0] * scale)
    strip = result.shape[0] - round(size[1] * scale)
    assert result.dtype == np.uint8 and 20 < strip < 60
    assert 2 * width < result.shape[1] < 2 * width + 30
    assert (image == BLUE).all()
    true_panel, found_panel = result[strip:, :width], result[strip:, -width:]
    middle = round(85 * scale)  # crosses the left edge of the object at x = 40, and 10 or 8
    for panel, edges in ((true_panel, (40, 120)), (found_panel, (8, 10, 50))):
        for x in edges:
            assert (panel[middle, round(x * scale)] != BLUE).any()
        assert (panel[middle, round(25 * scale)] == BLUE).all()


def test_models_stand_side_by_side():
    image = blue_picture(640, 200)
    models = {
        "dense": detected([[10.0, 50, 50, 100]], [0.3], [0], image),
        "compact": detected([[100.0, 50, 150, 100]], [0.3], [0], image),
    }
    result = draw_detections(image, models, [], ["cat"])
    gap = (result.shape[1] - 3 * 640) // 2
    truth, dense, compact = (result[-200:, x * (640 + gap) :][:, :640] for x in range(3))
    assert (truth == BLUE).all()
    assert (dense[75, 10] != BLUE).any() and (dense[75, 100] == BLUE).all()
    assert (compact[75, 100] != BLUE).any() and (compact[75, 10] == BLUE).all()


def test_nothing_to_draw():
    image = blue_picture(800, 600)
    result = draw_detections(image, detected([], [], [], image), [], ["cat"])
    assert (result[-600:, :800] == BLUE).all() and (result[-600:, -800:] == BLUE).all()


def test_boxes_at_and_beyond_the_border():
    image = blue_picture(90, 60)
    boxes = np.array([[0, 0, 90, 60], [-20, -20, 10, 10], [80, 50, 120, 90.0]])
    result = draw_boxes(image, boxes, [0, 1, 2], ["a very long name of a class", "b", "c"])
    assert result.shape == image.shape and (result != image).any()
