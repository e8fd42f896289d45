"""COCO AP and VOC mAP side by side, for any registered detection dataset."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from detectron2.utils import comm

from ..compat import coco_api
from .voc import VOCDetectionEvaluator


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluators:
    """COCO's official box metrics (under "bbox") and VOC's mAP (under "voc"), in percent.

    Call it on every process. COCO AP knows crowds but no difficult objects: there a difficult
    object is an object like any other. At most 100 detections per image count for COCO AP.

    Args:
        dataset_name: a registered dataset, with or without a COCO json of its own. For one
            without, detectron2 writes `{dataset_name}_coco_format.json` to the output folder.
        output_folder: where detections go; `cfg.OUTPUT_DIR/inference` if not given.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    metadata = MetadataCatalog.get(dataset_name)
    has_json = hasattr(metadata, "json_file")
    if not has_json:
        # COCOEvaluator would trust a json left there when the dataset was another.
        cached = os.path.join(output_folder, f"{dataset_name}_coco_format.json")
        if comm.is_main_process() and os.path.exists(cached):
            os.remove(cached)
        comm.synchronize()
    coco = COCOEvaluator(
        dataset_name, tasks=("bbox",), output_dir=output_folder, use_fast_impl=False
    )
    if not has_json:
        # It now counts as the dataset's own json, wherever later evaluations write theirs.
        del metadata.json_file
    # pycocotools reads both; annotation tools leave them out, and detectron2 trains without.
    for annotation in coco_api(coco).anns.values():
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    return DatasetEvaluators([coco, VOCDetectionEvaluator(dataset_name)])
