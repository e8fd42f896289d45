"""The evaluators that suit what a model gives: boxes, masks, keypoints, maps, segments."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..modeling import meta_architecture
from .coco import COCOBoxEvaluator, COCOKeypointEvaluator, COCOMaskEvaluator
from .detections import MissingData
from .lvis import build_lvis_evaluator
from .panoptic import PanopticEvaluator
from .proposals import ProposalEvaluator
from .semantic import SemanticEvaluator
from .voc import VOCDetectionEvaluator

# By meta architecture; of all others it is that of boxes.
BEST = {
    "ImageClassifier": "classification/top1",
    "ProposalNetwork": "box_proposals/AR@1000",
    "SemanticSegmentor": "sem_seg/mIoU",
    "PanopticFPN": "panoptic_seg/PQ",
}


class BoxEvaluators(DatasetEvaluators):
    """Several evaluators side by side, which match classes by name."""

    def __init__(self, evaluators: Sequence[Any]):
        super().__init__(evaluators)
        self.evaluators = evaluators

    def match(self, class_names: Sequence[str]) -> None:
        """As :meth:`BoxEvaluator.match`."""
        for evaluator in self.evaluators:
            if hasattr(evaluator, "match"):  # not of what has no classes, or no named ones
                evaluator.match(class_names)


def best_metric(cfg: CfgNode) -> str:
    """By which the checkpoints of one training compare, as ``task/metric``; more is better."""
    return BEST.get(meta_architecture(cfg), "bbox/AP50")


def build_evaluator(
    cfg: CfgNode,
    dataset_name: str,
    output_folder: str | None = None,
    class_names: Sequence[str] | None = None,
) -> BoxEvaluators:
    """All that a model of ``cfg`` gives is evaluated, in percent, if the dataset can tell.

    COCO's metrics of boxes ("bbox"), masks ("segm") and keypoints ("keypoints") beside VOC's mAP
    ("voc"); on LVIS, its own instead. Of a proposal generator alone, recall ("box_proposals"). IoU
    of semantic maps ("sem_seg"), panoptic quality ("panoptic_seg"). What the dataset has no
    annotations for is named in the log.

    Call it on every process. COCO AP knows crowds but no difficult objects: there a difficult
    object is an object like any other. At most 100 detections per image count for COCO AP.

    Args:
        dataset_name: a registered dataset, with or without a COCO json of its own.
        output_folder: where detections go; `cfg.OUTPUT_DIR/inference` if not given.
        class_names: those of the model, in its own order; the dataset's if None.

    Raises:
        InputError: the dataset has other classes, or nothing to compare with.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluators, lacking = [], []
    for task, build in _wanted(cfg, dataset_name, output_folder, class_names):
        try:
            evaluators.append(build())
        except MissingData as error:
            lacking.append(f"{task} is not evaluated: {error}")
    if not evaluators:
        raise MissingData("; ".join(lacking))
    for line in lacking:
        logging.getLogger(__name__).warning(line)
    return BoxEvaluators(evaluators)


def _wanted(
    cfg: CfgNode, dataset: str, folder: str, names: Sequence[str] | None
) -> Iterator[tuple[str, Callable[[], DatasetEvaluator]]]:
    """What a model of ``cfg`` gives, and what evaluates it."""
    kind, model = meta_architecture(cfg), cfg.MODEL
    if kind == "ProposalNetwork":
        yield "box_proposals", partial(ProposalEvaluator, dataset)
    elif MetadataCatalog.get(dataset).get("evaluator_type") == "lvis":
        yield "lvis", partial(build_lvis_evaluator, cfg, dataset, folder, names)
    elif kind != "SemanticSegmentor":
        yield "bbox", partial(COCOBoxEvaluator, dataset, folder, names)
        yield "voc", partial(VOCDetectionEvaluator, dataset, names)
        if model.MASK_ON:
            yield "segm", partial(COCOMaskEvaluator, dataset, folder, names)
        if model.KEYPOINT_ON:
            sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
            yield "keypoints", partial(COCOKeypointEvaluator, dataset, folder, names, sigmas)
    if kind in ("SemanticSegmentor", "PanopticFPN"):
        classes = model.SEM_SEG_HEAD.NUM_CLASSES
        yield "sem_seg", partial(SemanticEvaluator, dataset, folder, classes)
    if kind == "PanopticFPN":
        yield "panoptic_seg", partial(PanopticEvaluator, dataset, names)
