"""COCO AP and VOC mAP side by side, for any registered detection dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluators

from .coco import COCOBoxEvaluator
from .detections import BoxEvaluator
from .voc import VOCDetectionEvaluator


class BoxEvaluators(DatasetEvaluators):
    """Several :class:`BoxEvaluator` side by side."""

    def __init__(self, evaluators: Sequence[BoxEvaluator]):
        super().__init__(evaluators)
        self.evaluators = evaluators

    def match(self, class_names: Sequence[str]) -> None:
        """As :meth:`BoxEvaluator.match`."""
        for evaluator in self.evaluators:
            evaluator.match(class_names)


def build_evaluator(
    cfg: CfgNode,
    dataset_name: str,
    output_folder: str | None = None,
    class_names: Sequence[str] | None = None,
) -> BoxEvaluators:
    """COCO's official box metrics (under "bbox") and VOC's mAP (under "voc"), in percent.

    Call it on every process. COCO AP knows crowds but no difficult objects: there a difficult
    object is an object like any other. At most 100 detections per image count for COCO AP.

    Args:
        dataset_name: a registered dataset, with or without a COCO json of its own.
        output_folder: where detections go; `cfg.OUTPUT_DIR/inference` if not given.
        class_names: those of the model, in its own order; the dataset's if None.

    Raises:
        InputError: the dataset has other classes.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    return BoxEvaluators(
        [
            COCOBoxEvaluator(dataset_name, output_folder, class_names),
            VOCDetectionEvaluator(dataset_name, class_names),
        ]
    )
