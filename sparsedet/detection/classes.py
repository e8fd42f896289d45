"""The names of the classes that a detector tells apart."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..errors import InputError
from ..modeling import dense_config


def class_names(cfg: CfgNode, dataset: str) -> list[str]:
    """The names of the classes of a dataset, as many as the model tells apart.

    Empty for a dataset whose classes are known only when it is loaded.

    Raises:
        InputError: the model has another number of classes.
    """
    names = MetadataCatalog.get(dataset).get("thing_classes", [])
    head = "RETINANET" if "Retina" in dense_config(cfg).MODEL.META_ARCHITECTURE else "ROI_HEADS"
    classes = cfg.MODEL[head].NUM_CLASSES
    if names and len(names) != classes:
        raise InputError(
            f"MODEL.{head}.NUM_CLASSES is {classes}, but dataset {dataset} has {len(names)} classes"
        )
    return list(names)


def test_class_names(cfg: CfgNode) -> list[str]:
    """Those of the first dataset in DATASETS.TEST, by which a tool names what it detects.

    Raises:
        InputError: there is none, or it names no classes, or another number than the model's.
    """
    names = class_names(cfg, cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else []
    if not names:
        raise InputError(
            f"DATASETS.TEST: {cfg.DATASETS.TEST} names no classes; name first the dataset that the "
            "model was trained for"
        )
    return names
