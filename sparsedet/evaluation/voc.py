"""Pascal VOC's mean average precision at IoU 0.5, for any registered detection dataset.

The rules are the devkit's (Everingham et al., *The Pascal Visual Object Classes Challenge*): all
detections of a class, by descending score, go to the ground truth of highest IoU in their image;
a match needs IoU > 0.5; a second match of one object is a false positive; a match of a difficult
object counts neither way. Crowd regions (`iscrowd`) are treated like difficult objects.
"""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation.pascal_voc_evaluation import voc_ap
from detectron2.structures import BoxMode
from detectron2.utils.logger import create_small_table
from torchvision.ops import box_iou

from .detections import BoxEvaluator, ImageDetections, per_class

IOU_THRESHOLD = 0.5


class VOCDetectionEvaluator(BoxEvaluator):
    """VOC mAP from the dataset's own dicts, so it needs no VOC folder.

    Ground truth is read from `DatasetCatalog`: `category_id`, `bbox`, `bbox_mode`, and where
    they are present `difficult` and `iscrowd`; for detectron2's own VOC datasets `difficult` comes
    from their XML.
    """

    task = "voc"

    def score(self, detections: Sequence[ImageDetections], dataset: list[dict]) -> dict:
        """`{"mAP", "mAP_11pt", "AP-<class>", ...}` in percent."""
        metadata = MetadataCatalog.get(self.dataset_name)
        if metadata.get("evaluator_type") == "pascal_voc":
            _mark_difficult(dataset, os.path.join(metadata.dirname, "Annotations"))
        results = evaluate_voc(detections, dataset, self.classes)
        logging.getLogger(__name__).info(
            "VOC results at IoU 0.5 (area, 11-point):\n%s",
            create_small_table({key: results[key] for key in ("mAP", "mAP_11pt")}),
        )
        return results


def _mark_difficult(dataset: Iterable[dict], folder: str) -> None:
    """Add `difficult` from the XML, which detectron2's own VOC datasets leave out."""
    for image in dataset:
        annotations = image["annotations"]
        if all("difficult" in annotation for annotation in annotations):
            continue
        tree = ElementTree.parse(os.path.join(folder, f"{image['image_id']}.xml"))
        for annotation, node in zip(annotations, tree.findall("object")):
            annotation["difficult"] = int(node.findtext("difficult", "0"))


def evaluate_voc(
    detections: Iterable[ImageDetections], dataset: Iterable[dict], class_names: Sequence[str]
) -> dict[str, float]:
    """Average precision at IoU 0.5 of `detections` against the ground truth in `dataset`.

    Args:
        dataset: detectron2 dataset dicts, every image that counts.

    Returns:
        in percent: `mAP`, by the area under the curve (VOC 2010 on), `mAP_11pt`, by eleven
        points (VOC 2007), and `AP-<class>` by area. A class without an object that is not
        difficult has AP nan and is left out of the means.
    """
    truth = _GroundTruth(dataset)
    # One empty part, so that there is something to concatenate when nothing was detected.
    scores, classes, matches = [np.zeros(0)], [np.zeros(0, int)], [np.zeros(0, int)]
    for image_id, boxes, image_scores, image_classes, _ in detections:
        scores.append(image_scores)
        classes.append(image_classes)
        matches.append(truth.match(image_id, boxes, image_classes))
    scores, classes, matches = map(np.concatenate, (scores, classes, matches))
    order = np.argsort(-scores, kind="stable")
    classes, matches = classes[order], matches[order]

    area, eleven_point = [], []
    for class_id in range(len(class_names)):
        num_objects = np.sum((truth.classes == class_id) & ~truth.difficult)
        if num_objects == 0:
            area.append(np.nan)
            eleven_point.append(np.nan)
            continue
        recall, precision = _recall_precision(
            matches[classes == class_id], truth.difficult, num_objects
        )
        area.append(100.0 * voc_ap(recall, precision))
        eleven_point.append(100.0 * voc_ap(recall, precision, use_07_metric=True))

    results = {"mAP": _mean(area), "mAP_11pt": _mean(eleven_point)}
    return {**results, **per_class(class_names, area)}


class _GroundTruth:
    """Every object of a dataset, numbered, and which of them belong to an image."""

    def __init__(self, dataset: Iterable[dict]):
        self._objects_of_image = {}
        boxes, classes, difficult = [], [], []
        for image in dataset:
            first = len(boxes)
            for obj in image.get("annotations", ()):
                boxes.append(BoxMode.convert(list(obj["bbox"]), obj["bbox_mode"], BoxMode.XYXY_ABS))
                classes.append(obj["category_id"])
                difficult.append(bool(obj.get("difficult", 0) or obj.get("iscrowd", 0)))
            self._objects_of_image[image["image_id"]] = slice(first, len(boxes))
        self.boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        self.classes = np.array(classes, dtype=int)
        self.difficult = np.array(difficult, dtype=bool)

    def match(self, image_id, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Number of the object of highest IoU, same image and class; -1 if its IoU <= 0.5.

        The devkit counts inclusive pixels, numbered from 1, with + 1 in every width. Dataset
        dicts hold continuous coordinates (detectron2 subtracts 1 from xmin and ymin alone), in
        which the same width is xmax - xmin: plain IoU is the devkit's.
        """
        objects = self._objects_of_image[image_id]
        if len(boxes) == 0 or objects.start == objects.stop:
            return np.full(len(boxes), -1)
        iou = box_iou(torch.from_numpy(boxes), self.boxes[objects]).numpy()
        iou[classes[:, None] != self.classes[objects]] = -1.0
        best = iou.argmax(axis=1)
        return np.where(iou.max(axis=1) > IOU_THRESHOLD, objects.start + best, -1)


def _recall_precision(
    matches: np.ndarray, difficult: np.ndarray, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both after each detection of one class; `matches` by descending score."""
    found_difficult = np.isin(matches, np.flatnonzero(difficult))
    matches = matches[~found_difficult]
    true_positive = np.zeros(len(matches), dtype=bool)
    _, first_match = np.unique(matches, return_index=True)
    true_positive[first_match] = True
    true_positive[matches < 0] = False
    num_true = np.cumsum(true_positive)
    return num_true / num_objects, num_true / np.arange(1, len(matches) + 1)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
