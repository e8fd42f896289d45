"""The names of the classes that a detector tells apart."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import ProposalNetwork, SemanticSegmentor
from torch import nn

from ..checkpoint import model_class_names, stored_class_names
from ..checkpoint.class_names import KEY
from ..data.class_order import class_order, dataset_classes
from ..errors import InputError
from ..modeling import is_classifier, meta_architecture


def class_names(cfg: CfgNode, dataset: str) -> list[str]:
    """The names of the classes of a dataset, as many as the model tells apart.

    Empty for a dataset whose classes are known only when it is loaded, and for a model that tells
    no objects apart.

    Raises:
        InputError: the model has another number of classes.
    """
    names = MetadataCatalog.get(dataset).get("thing_classes", []) if _has_classes(cfg) else []
    if names:
        _check_number(cfg, len(names), f"dataset {dataset}")
    return list(names)


def _has_classes(cfg: CfgNode) -> bool:
    return meta_architecture(cfg) not in ("ProposalNetwork", "SemanticSegmentor")


def _check_number(cfg: CfgNode, number: int, where: str) -> None:
    if not _has_classes(cfg):
        return
    head = "RETINANET" if "Retina" in meta_architecture(cfg) else "ROI_HEADS"
    head = "CLASSIFIER" if is_classifier(cfg) else head
    classes = cfg.MODEL[head].NUM_CLASSES
    if number != classes:
        raise InputError(f"MODEL.{head}.NUM_CLASSES is {classes}, but {where} has {number} classes")


def training_class_names(cfg: CfgNode) -> list[str]:
    """Those of a model that is to be trained: of the first dataset in DATASETS.TRAIN, if any.

    Where MODEL.WEIGHTS has the same names in another order, they keep that.

    Raises:
        InputError: other datasets in DATASETS.TRAIN and .TEST have other classes.
    """
    if not _has_classes(cfg):
        return []
    names = dataset_classes(cfg.DATASETS.TRAIN[0]) if cfg.DATASETS.TRAIN else []
    stored = stored_class_names(cfg.MODEL.WEIGHTS)
    if stored and sorted(stored) == sorted(names):
        names = stored
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if names else ():
        class_order(names, dataset_classes(dataset), dataset)
    return names


def detected_class_names(cfg: CfgNode, model: nn.Module) -> list[str]:
    """Those of a trained model, by which a tool names what it detects.

    A checkpoint says them. For one of an earlier version they are those of the first dataset in
    DATASETS.TEST. Proposals have one class, and a model of stuff alone has none.

    Raises:
        InputError: it is of an earlier version, and there is no such dataset, or it names no
            classes, or another number than the model's.
    """
    if isinstance(model, ProposalNetwork):
        return ["object"]
    if isinstance(model, SemanticSegmentor):
        return []
    names = model_class_names(model)
    if not names and cfg.DATASETS.TEST:
        names = class_names(cfg, cfg.DATASETS.TEST[0])
    if not names:
        raise InputError(
            f"DATASETS.TEST: {cfg.DATASETS.TEST} names no classes; name first the dataset that the "
            "model was trained for"
        )
    return names


def check_test_classes(cfg: CfgNode, model: nn.Module) -> None:
    """Refuse a trained model whose classes are not those of DATASETS.TEST, in whatever order.

    Raises:
        InputError: a dataset there has other classes than the checkpoint says, or this says more or
            fewer than the model tells apart.
    """
    names = model_class_names(model)
    if not names:
        return
    _check_number(cfg, len(names), f"{KEY} in the checkpoint")
    for dataset in cfg.DATASETS.TEST:
        others = class_names(cfg, dataset)
        if others:
            class_order(names, others, dataset)
