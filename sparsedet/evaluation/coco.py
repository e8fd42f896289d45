"""COCO's box metrics, by pycocotools, for any registered detection dataset."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.logger import create_small_table
from pycocotools.cocoeval import COCOeval

from ..files import replacing
from ..reports.tables import pipe_table
from .coco_tables import area, row, table, with_areas
from .detections import BoxEvaluator, ImageDetections, per_class

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first of COCOeval's


class COCOBoxEvaluator(BoxEvaluator):
    """COCO AP from the dataset's own dicts, so it needs no json.

    Crowds count as COCO has it; difficult objects are objects like any other. The 100 best
    detections of an image count.

    Args:
        dataset_name, class_names: as in :class:`BoxEvaluator`.
        output_folder: gets `coco_instances_results.json`, in the dataset's own ids.
    """

    task = "bbox"

    def __init__(
        self, dataset_name: str, output_folder: str, class_names: Sequence[str] | None = None
    ):
        super().__init__(dataset_name, class_names)
        self._output_folder = output_folder

    def score(self, detections: Sequence[ImageDetections], dataset: list[dict]) -> dict:
        metadata = MetadataCatalog.get(self.dataset_name)
        os.makedirs(self._output_folder, exist_ok=True)
        path = os.path.join(self._output_folder, "coco_instances_results.json")
        ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
        category_ids = {place: category_id for category_id, place in ids.items()}
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(list(_results(detections, category_ids)), file)
        objects = (obj for image in dataset for obj in image.get("annotations", ()))
        json_file = metadata.get("json_file") if metadata.get("evaluator_type") == "coco" else None
        if json_file and not any("area" in obj for obj in objects):
            dataset = with_areas(dataset, json_file)
        results = evaluate_coco(detections, dataset, self.classes)
        classes = [[key[3:], f"{results[key]:.2f}"] for key in results if key not in METRICS]
        logging.getLogger(__name__).info(
            "COCO results:\n%s\n%s",
            create_small_table({key: results[key] for key in METRICS}),
            pipe_table(["class", "AP"], classes),
        )
        return results


def evaluate_coco(
    detections: Iterable[ImageDetections], dataset: Iterable[dict], class_names: Sequence[str]
) -> dict[str, float]:
    """COCO's box metrics of `detections` against the ground truth in `dataset`.

    pycocotools gets a copy with ids of our own, from 1 on: for it an annotation of id 0 is never
    found, and it sorts the ids of images, which may be numbers and texts.

    Args:
        dataset: detectron2 dataset dicts, every image that counts; the `area` of an annotation is
            that of its mask, or of its box, unless it says it.

    Returns:
        in percent: AP (mean over IoU 0.5 to 0.95), AP50, AP75; APs, APm and APl of small, medium
        and large objects; `AP-<class>`. nan where there is no object to find.
    """
    numbers: dict[Any, int] = {}
    truth = []
    for image in dataset:
        number = numbers[image["image_id"]] = len(numbers) + 1
        for obj in image.get("annotations", ()):
            box = BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYWH_ABS)
            truth.append(row(number, obj["category_id"], box, area(obj), obj.get("iscrowd", 0)))
    found = [
        {**row(numbers[image.image_id], int(label), box, box[2] * box[3], 0), "score": score}
        for image in detections
        for box, label, score in zip(
            _xywh(image.boxes), image.classes.tolist(), image.scores.tolist()
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        tables = (table(rows, len(numbers), len(class_names)) for rows in (truth, found))
        evaluation = COCOeval(*tables, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (IoU, recall, class, area: all, detections: 100); -1 where there is no object
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])
    classes = precision[:, :, :, 0, -1].mean(axis=(0, 1))
    stats = evaluation.stats[: len(METRICS)]
    results = dict(zip(METRICS, np.where(stats < 0, np.nan, 100 * stats).tolist()))
    return {**results, **per_class(class_names, 100 * classes)}


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()


def _results(detections: Iterable[ImageDetections], category_ids: dict) -> Iterable[dict]:
    for image in detections:
        for box, label, score in zip(_xywh(image.boxes), image.classes.tolist(), image.scores):
            yield {
                "image_id": image.image_id,
                "category_id": category_ids.get(label, label),
                "bbox": box,
                "score": float(score),
            }
