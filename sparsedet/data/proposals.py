"""Proposals that were computed before, from a pickle as detectron2 writes it, which is not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import BoxMode

from ..errors import InputError
from ..pickles.arrays import read_arrays

OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # Detectron's, before detectron2
MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def proposal_file(cfg: CfgNode, split: str, dataset: str) -> str | None:
    """That of a dataset of DATASETS.TRAIN or .TEST; None where the model computes its proposals.

    Args:
        split: "TRAIN" or "TEST".

    Raises:
        InputError: there is not one file for each dataset.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return None
    key = f"PROPOSAL_FILES_{split}"
    files, datasets = cfg.DATASETS[key], cfg.DATASETS[split]
    if len(files) != len(datasets):
        raise InputError(
            f"DATASETS.{key}: {len(files)} files for the {len(datasets)} data sets of "
            f"DATASETS.{split}; give one for each, as MODEL.LOAD_PROPOSALS is true"
        )
    return files[list(datasets).index(dataset)]


def with_proposals(records: Iterable[dict], path: str | None) -> list[dict]:
    """The dataset dicts with proposal_boxes, proposal_objectness_logits and proposal_bbox_mode.

    As detectron2's ``load_proposals_into_dataset``, the best first; without a file, as they are.

    Args:
        path: a pickle of ids, boxes (an (N, 4) array of each image), objectness_logits ((N,)) and
            bbox_mode, by default XYXY_ABS.

    Raises:
        InputError: it cannot be read, would run code, or lacks an image's proposals.
    """
    if path is None:
        return list(records)
    found = _read(path)
    try:
        ids, boxes, logits = (found[key] for key in ("ids", "boxes", "objectness_logits"))
        mode = BoxMode(found.get("bbox_mode", BoxMode.XYXY_ABS))
        if mode not in MODES:
            raise ValueError(f"bbox_mode is {mode.name}; expected XYXY_ABS or XYWH_ABS")
        if not all(isinstance(rows, (list, tuple, np.ndarray)) for rows in (ids, boxes, logits)):
            raise ValueError("ids, boxes and objectness_logits are not lists")
        places = {str(name): place for place, name in enumerate(ids)}
        if not len(places) == len(ids) == len(boxes) == len(logits):
            raise ValueError("ids, boxes and objectness_logits are not one for each image")
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a file of proposals: {_reason(error)}") from error
    prepared = []
    for record in records:
        name = str(record["image_id"])
        if name not in places:
            raise InputError(f"{path}: no proposals of image {name}; compute them for all")
        place = places[name]
        one, scores = boxes[place], logits[place]
        if not _is_numbers(one, 2) or one.shape[1] != 4 or not _is_numbers(scores, 1):
            raise InputError(f"{path}: image {name}: boxes or objectness_logits are not numbers")
        if len(one) != len(scores):
            raise InputError(f"{path}: image {name}: {len(one)} boxes, {len(scores)} logits")
        best = scores.argsort()[::-1]
        fields = {
            "proposal_boxes": one[best],
            "proposal_objectness_logits": scores[best],
            "proposal_bbox_mode": mode,
        }
        prepared.append({**record, **fields})
    return prepared


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            found = read_arrays(file, {"detectron2.structures.boxes.BoxMode": BoxMode})
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # of damage nearly any
        raise InputError(f"{path}: not a file of proposals: {_reason(error)}") from error
    return {OLD_NAMES.get(key, key): value for key, value in found.items()}


def _reason(error: Exception) -> str:
    missing = isinstance(error, KeyError)
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"no {text}" if missing else text


def _is_numbers(value: Any, ndim: int) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.ndim == ndim
        and value.dtype.kind in "fiu"
        and bool(np.isfinite(value).all())
    )
