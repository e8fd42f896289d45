"""Evaluators that detectron2 lacks, and the pair that every tool runs: COCO AP and VOC mAP."""

from .build import build_evaluator
from .voc import VOCDetectionEvaluator, evaluate_voc

__all__ = ["VOCDetectionEvaluator", "build_evaluator", "evaluate_voc"]
