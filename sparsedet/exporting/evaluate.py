"""An exported detector beside the PyTorch model: accuracy, and every detection."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ..checkpoint import model_class_names
from ..data.class_order import class_order
from ..detection.classes import class_names, detected_class_names
from ..detection.labels import model_labels, numbered
from ..detection.outputs import from_detections, to_detections
from ..detection.predictor import Predictor
from ..errors import InputError
from ..evaluation import build_evaluator
from ..images import read_image
from ..modeling import meta_architecture
from ..runtime.detections import Detections
from ..runtime.detector import Detector
from .compare import SCORE, Difference, compare

COUNTS = ("matched", "unmatched")
# What is told of both, where they give it and the data has it.
METRICS = {
    "COCO AP": ("bbox", "AP"),
    "AP50": ("bbox", "AP50"),
    "VOC mAP": ("voc", "mAP"),
    "mask AP": ("segm", "AP"),
    "mask AP50": ("segm", "AP50"),
    "keypoint AP": ("keypoints", "AP"),
    "keypoint AP50": ("keypoints", "AP50"),
    "mIoU": ("sem_seg", "mIoU"),
    "PQ": ("panoptic_seg", "PQ"),
    "AR@100": ("box_proposals", "AR@100"),
    "AR@1000": ("box_proposals", "AR@1000"),
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
            of the file or the model; a file of another kind of model; an image that cannot be used.
    """
    cfg = predictor.cfg
    try:
        records = DatasetCatalog.get(dataset)
    except OSError as error:  # of a dataset that detectron2 registers
        raise InputError(f"DATASETS.TEST: {dataset}: {error}") from error
    objects = any(record.get("annotations") for record in records)
    if "boxes" in detector.info.outputs and not objects:
        raise InputError(f"DATASETS.TEST: {dataset} has no annotations to evaluate with")
    known = model_class_names(predictor.model) or class_names(cfg, dataset)
    names = known or detected_class_names(cfg, predictor.model)
    order = check_names(detector, names, dataset)
    labels, apart = model_labels(cfg, predictor.model, names), []
    # The evaluators leave their detections in files, and pycocotools prints.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        evaluators = [build_evaluator(cfg, dataset, folder, names) for _ in (predictor, detector)]
        for evaluator in evaluators:
            evaluator.reset()
        for record in tqdm(records, desc=dataset, unit="image"):
            image = read_image(record["file_name"])
            try:
                outputs, found = predictor.run(image), detector(image)
            except InputError as error:
                raise InputError(f"{record['file_name']}: {error}") from error
            found, expected = in_order(found, order), to_detections(outputs, names, labels)
            apart.append(compare_with_pytorch(cfg, expected, found, LEAST_SCORE))
            evaluators[0].process([record], [outputs])
            evaluators[1].process([record], [from_detections(found, outputs, image.shape[:2])])
        pytorch, exported = (metrics(evaluator.evaluate(), dataset) for evaluator in evaluators)
    return pytorch, exported, largest(apart)


def check_names(detector: Detector, names: Sequence[str], dataset: str) -> np.ndarray:
    """Where each class of a file stands in ``names``, those of the model.

    Raises:
        InputError: they are others; or the file has other names for stuff or keypoints, which go by
            their places, than the dataset.
    """
    info, metadata = detector.info, MetadataCatalog.get(dataset)
    for what, found, known in (
        ("stuff", info.labels.stuff_names, metadata.get("stuff_classes")),
        ("keypoints", info.labels.keypoint_names, metadata.get("keypoint_names")),
    ):
        if known and found and found != list(known) and not numbered(found):
            raise InputError(
                f"{detector.path}: its {what} are {', '.join(found)}, but those of {dataset} are "
                f"{', '.join(known)}"
            )
    if not (info.class_names and names):  # another kind of model, or both tell stuff alone
        return np.arange(len(info.class_names))
    try:
        return np.array(class_order(info.class_names, names, dataset), dtype=int)
    except InputError as error:
        raise InputError(f"{detector.path}: {error}") from None


def in_order(found: Detections, order: np.ndarray) -> Detections:
    """With the classes of things in the order of another model."""
    found = replace(found, classes=order[found.classes])
    if found.panoptic is None:
        return found
    segments = [
        replace(segment, category_id=int(order[segment.category_id]))
        if segment.isthing
        else segment
        for segment in found.panoptic.segments
    ]
    return replace(found, panoptic=replace(found.panoptic, segments=segments))


def metrics(results: dict, dataset: str) -> dict[str, float]:
    """Those that are told, of all that an evaluator gives."""
    lvis = MetadataCatalog.get(dataset).get("evaluator_type") == "lvis"
    found = {name: results[task][key] for name, (task, key) in METRICS.items() if task in results}
    return {name.replace("COCO", "LVIS") if lvis else name: value for name, value in found.items()}


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
