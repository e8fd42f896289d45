"""Evaluators that match classes by name and need no json, for all that a model gives."""

from .build import BoxEvaluators, best_metric, build_evaluator
from .coco import (
    COCOBoxEvaluator,
    COCOKeypointEvaluator,
    COCOMaskEvaluator,
    evaluate_coco,
)
from .detections import MissingData
from .panoptic import PanopticEvaluator
from .proposals import ProposalEvaluator
from .semantic import SemanticEvaluator
from .voc import VOCDetectionEvaluator, evaluate_voc

__all__ = [
    "BoxEvaluators",
    "COCOBoxEvaluator",
    "COCOKeypointEvaluator",
    "COCOMaskEvaluator",
    "MissingData",
    "PanopticEvaluator",
    "ProposalEvaluator",
    "SemanticEvaluator",
    "VOCDetectionEvaluator",
    "best_metric",
    "build_evaluator",
    "evaluate_coco",
    "evaluate_voc",
]
