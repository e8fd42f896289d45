"""The names of stuff and keypoints, and the colours, of a model's first test dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import nn

from ..errors import InputError
from ..runtime.labels import Labels


def model_labels(cfg: CfgNode, model: nn.Module, names: Sequence[str]) -> Labels:
    """What the first dataset in DATASETS.TEST says; numbered names where it says none.

    Args:
        names: of the model's classes, in its order.

    Raises:
        InputError: the dataset has more or fewer stuff classes or keypoints than the model.
    """
    dataset = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else ""
    metadata = MetadataCatalog.get(dataset) if dataset else Metadata()
    predictor = getattr(getattr(model, "sem_seg_head", None), "predictor", None)
    head = getattr(getattr(model, "roi_heads", None), "keypoint_head", None)
    stuff = _names(
        *(metadata.get("stuff_classes"), getattr(predictor, "out_channels", 0)),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", f"dataset {dataset}", "stuff class"),
    )
    keypoints = _names(
        *(metadata.get("keypoint_names"), getattr(head, "num_keypoints", 0)),
        *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", f"dataset {dataset}", "keypoint"),
    )
    colors = dict(zip(metadata.get("thing_classes", []), metadata.get("thing_colors", [])))
    stuff_colors = metadata.get("stuff_colors", [])
    lines = [
        (keypoints.index(a), keypoints.index(b), color)
        for a, b, color in metadata.get("keypoint_connection_rules", [])
        if a in keypoints and b in keypoints
    ]
    return Labels(
        class_colors=[_color(colors[n]) for n in names] if {*names} <= {*colors} else [],
        stuff_names=stuff,
        stuff_colors=[_color(c) for c in stuff_colors] if len(stuff_colors) == len(stuff) else [],
        keypoint_names=keypoints,
        skeleton=[[a, b] for a, b, _ in lines],
        skeleton_colors=[_color(color) for _, _, color in lines],
    )


def _names(known: Sequence[str] | None, number: int, key: str, where: str, what: str) -> list[str]:
    """``number`` names, the known ones where there are any."""
    if known and number and len(known) != number:
        plural = "stuff classes" if what == "stuff class" else f"{what}s"
        raise InputError(f"{key} is {number}, but {where} has {len(known)} {plural}")
    return list(known) if known and number else [f"{what} {i}" for i in range(number)]


def numbered(names: Sequence[str]) -> bool:
    """Whether these are the names that :func:`model_labels` gives where no dataset says any."""
    return all(re.fullmatch(rf"(stuff class|keypoint) {i}", n) for i, n in enumerate(names))


def _color(color: Sequence[float]) -> list[int]:
    return [int(value) for value in color]
