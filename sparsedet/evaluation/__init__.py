"""Evaluators that detectron2 lacks, and the pair that every tool runs: COCO AP and VOC mAP."""

from .build import BoxEvaluators, build_evaluator
from .coco import COCOBoxEvaluator, evaluate_coco
from .voc import VOCDetectionEvaluator, evaluate_voc

__all__ = [
    "BoxEvaluators",
    "COCOBoxEvaluator",
    "VOCDetectionEvaluator",
    "build_evaluator",
    "evaluate_coco",
    "evaluate_voc",
]
