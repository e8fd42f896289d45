"""An exported detector beside the PyTorch model: accuracy, and every detection."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from tqdm import tqdm

from ..checkpoint import model_class_names
from ..data.class_order import class_order
from ..detection.classes import class_names
from ..detection.predictor import Predictor
from ..errors import InputError
from ..evaluation import build_evaluator
from ..images import read_image
from ..modeling import meta_architecture
from ..runtime.detections import Detections
from ..runtime.detector import Detector
from .compare import SCORE, Difference, compare

COUNTS = ("matched", "unmatched")
# What is evaluated of both, where they give it and the data has it.
METRICS = {
    "COCO AP": ("bbox", "AP"),
    "AP50": ("bbox", "AP50"),
    "VOC mAP": ("voc", "mAP"),
    "mask AP": ("segm", "AP"),
    "mask AP50": ("segm", "AP50"),
    "keypoint AP": ("keypoints", "AP"),
    "keypoint AP50": ("keypoints", "AP50"),
}
LEAST_SCORE = 0.05  # of the detections that :func:`evaluate_export` matches


def evaluate_export(
    predictor: Predictor, detector: Detector, dataset: str
) -> tuple[dict[str, float], dict[str, float], Difference]:
    """Run both over the images of a registered dataset.

    Returns:
        those of METRICS that can be had, of the PyTorch model and of the exported file, in percent;
        and, over all images, how far their detections above LEAST_SCORE are apart.

    Raises:
        InputError: a dataset that is not there, or has no annotations; other classes than those
            of the file or the model; an image that cannot be used.
    """
    cfg = predictor.cfg
    if "boxes" not in detector.info.outputs:
        raise InputError(f"{detector.path}: it gives a semantic map, and no boxes to evaluate")
    try:
        records = DatasetCatalog.get(dataset)
    except OSError as error:  # of a dataset that detectron2 registers
        raise InputError(f"DATASETS.TEST: {dataset}: {error}") from error
    if not any(record.get("annotations") for record in records):
        raise InputError(f"DATASETS.TEST: {dataset} has no annotations to evaluate with")
    names = model_class_names(predictor.model) or class_names(cfg, dataset)
    try:
        order = np.array(class_order(detector.info.class_names, names, dataset), dtype=int)
    except InputError as error:
        raise InputError(f"{detector.path}: {error}") from None
    apart = []
    # The evaluators leave their detections in files, and pycocotools prints.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        evaluators = [
            build_evaluator(cfg, dataset, folder, names, {task for task, _ in METRICS.values()})
            for _ in (predictor, detector)
        ]
        for evaluator in evaluators:
            evaluator.reset()
        for record in tqdm(records, desc=dataset, unit="image"):
            image = read_image(record["file_name"])
            try:
                expected, found = predictor.detect(image, names), detector(image)
            except InputError as error:
                raise InputError(f"{record['file_name']}: {error}") from error
            answers = expected, replace(found, classes=order[found.classes])
            for evaluator, answer in zip(evaluators, answers):
                evaluator.process([record], [{"instances": to_instances(answer, *image.shape[:2])}])
            apart.append(compare_with_pytorch(cfg, *answers, LEAST_SCORE))
        pytorch, exported = (metrics(evaluator.evaluate()) for evaluator in evaluators)
    return pytorch, exported, largest(apart)


def to_instances(found: Detections, height: int, width: int) -> Instances:
    """As a detectron2 model gives them, of an image of ``height`` x ``width`` pixels."""
    instances = Instances(
        (height, width),
        pred_boxes=Boxes(torch.as_tensor(found.boxes)),
        scores=torch.as_tensor(found.scores),
        pred_classes=torch.as_tensor(found.classes),
    )
    if found.masks is not None:
        masks = np.asarray(found.masks, dtype=bool).reshape(-1, height, width)
        instances.pred_masks = torch.as_tensor(masks)
    if found.keypoints is not None:
        instances.pred_keypoints = torch.as_tensor(found.keypoints)
    return instances


def metrics(results: dict) -> dict[str, float]:
    """Those that are compared, of all that an evaluator gives."""
    return {name: results[task][key] for name, (task, key) in METRICS.items() if task in results}


def compare_with_pytorch(
    cfg: CfgNode, expected: Detections, found: Detections, least: float = 0.0
) -> Difference:
    """Compare what an exported file finds with what the PyTorch model of ``cfg`` finds.

    At the threshold, and where the best are cut off, a detection may come or go by rounding: there
    it needs no counterpart.

    Args:
        least: leaves out the detections of no greater score.
    """
    threshold, most = detection_limits(cfg)
    least = max(least, threshold)
    expected, found = expected.above(least), found.above(least)
    floor = least + SCORE
    if len(expected) and len(expected) == most:
        floor = max(floor, expected.scores.min() + SCORE)
    return compare(expected, found, floor)


def detection_limits(cfg: CfgNode) -> tuple[float, int]:
    """The score that detections of a model must exceed, and how many there may be in an image."""
    architecture = meta_architecture(cfg)
    if architecture == "ProposalNetwork":
        return 0.0, cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    head = cfg.MODEL.RETINANET if "Retina" in architecture else cfg.MODEL.ROI_HEADS
    return head.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE


def largest(apart: Sequence[Difference]) -> Difference:
    """Of one or more images: the sums of the counts, the largest differences."""
    counts = {name: sum(getattr(image, name) for image in apart) for name in COUNTS}
    others = {
        entry.name: [getattr(image, entry.name) for image in apart]
        for entry in fields(Difference)
        if entry.name not in COUNTS
    }
    return Difference(
        **counts, **{n: None if None in values else max(values) for n, values in others.items()}
    )
