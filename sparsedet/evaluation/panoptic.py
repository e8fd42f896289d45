"""Panoptic quality (Kirillov et al., *Panoptic Segmentation*, arXiv 1801.00868).

As COCO's own panopticapi computes it, which is on no package index: a segment of the prediction
matches one of the ground truth of its category where their IoU, over what is annotated, is above a
half. Of a category with TP matches, FP and FN segments without,
PQ = sum of IoU / (TP + FP / 2 + FN / 2) = SQ * RQ.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from ..data.class_order import class_order, dataset_classes
from ..errors import InputError
from ..reports.tables import pipe_table
from .detections import MissingData, field

UNLABELLED = 0  # the id of pixels that are annotated as nothing
KINDS = {"": "All", "_th": "Things", "_st": "Stuff"}

# Of a category: sum of IoU, TP, FP, FN.
Counts = Mapping[int, np.ndarray]


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ under "panoptic_seg", in percent; `PQ_th` of things alone, `PQ_st` of stuff.

    Synchronises: call `evaluate` on every process.

    Args:
        dataset_name: a registered dataset, whose metadata has panoptic_json and panoptic_root.
        class_names: of the things that the model knows, in its own order; the dataset's if None.

    Raises:
        MissingData: the dataset has no panoptic annotations.
        InputError: they cannot be read, or the dataset has other classes.
    """

    task = "panoptic_seg"

    def __init__(self, dataset_name: str, class_names: Sequence[str] | None = None):
        self.dataset_name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        path = metadata.get("panoptic_json")
        if not path or not os.path.isfile(path):
            where = f": there is no {path}" if path else ""
            raise MissingData(f"{dataset_name} has no panoptic annotations{where}")
        self._folder = metadata.panoptic_root
        self._truth, self._things = _read_truth(path)
        # detectron2's models number things and stuff each from 0
        self._thing_ids = _by_place(metadata.thing_dataset_id_to_contiguous_id)
        self._stuff_ids = _by_place(metadata.stuff_dataset_id_to_contiguous_id)
        self.classes = dataset_classes(dataset_name)
        self.match(class_names or self.classes)
        self.reset()

    def match(self, class_names: Sequence[str]) -> None:
        """As :meth:`BoxEvaluator.match`, of things; stuff goes by its place."""
        self._order = class_order(class_names, self.classes, self.dataset_name)

    def reset(self) -> None:
        self._counts: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))

    def process(self, inputs, outputs) -> None:
        for image, output in zip(inputs, outputs):
            found, segments = field(output, "panoptic_seg")
            if segments is None:
                raise InputError("the model gives panoptic_seg without the category of segments")
            name = image["image_id"]
            if name not in self._truth:
                raise InputError(f"{self.dataset_name}: image {name} has no panoptic annotation")
            row = self._truth[name]
            categories = {segment["id"]: self._category(segment) for segment in segments}
            truth = _read_ids(os.path.join(self._folder, row["file_name"]))
            if truth.shape != tuple(found.shape):
                raise InputError(
                    f"{row['file_name']}: {truth.shape} pixels, but its image has "
                    f"{tuple(found.shape)}"
                )
            counts = count_segments(truth, row["segments_info"], found.cpu().numpy(), categories)
            for category, numbers in counts.items():
                self._counts[category] += numbers

    def _category(self, segment: Mapping[str, Any]) -> int:
        if segment["isthing"]:
            return self._thing_ids[self._order[segment["category_id"]]]
        return self._stuff_ids[segment["category_id"]]

    def evaluate(self) -> dict:
        gathered = comm.gather(dict(self._counts), dst=0)
        if not comm.is_main_process():
            return {}
        total: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
        for counts in gathered:
            for category, numbers in counts.items():
                total[category] += numbers
        results = panoptic_quality(total, self._things)
        rows = [
            [what, *(f"{results[f'{name}{end}']:.2f}" for name in ("PQ", "SQ", "RQ"))]
            for end, what in KINDS.items()
        ]
        logging.getLogger(__name__).info(
            "Panoptic quality:\n%s", pipe_table(["", "PQ", "SQ", "RQ"], rows)
        )
        return OrderedDict([(self.task, results)])


def count_segments(
    truth: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    found: np.ndarray,
    categories: Mapping[int, int],
) -> Counts:
    """What one image adds to each category.

    Args:
        truth, found: (H, W), the segment of each pixel by id, UNLABELLED for none.
        truth_segments: of ``truth``, COCO's id, category_id and iscrowd.
        categories: of the segments of ``found``.
    """
    counts: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
    both, sizes = np.unique((truth.astype(np.int64) << 32) | found, return_counts=True)
    pairs = Counter({(int(x) >> 32, int(x) & 0xFFFFFFFF): int(n) for x, n in zip(both, sizes)})
    areas, found_areas = Counter(), Counter()
    for (one, other), area in pairs.items():
        areas[one] += area
        found_areas[other] += area
    crowds = {s["id"]: s["category_id"] for s in truth_segments if s.get("iscrowd")}
    single = {s["id"]: s["category_id"] for s in truth_segments if not s.get("iscrowd")}
    matched: set[tuple[str, int]] = set()
    for (one, other), area in pairs.items():
        if other not in categories or single.get(one) != categories[other]:
            continue
        union = areas[one] + found_areas[other] - area - pairs[UNLABELLED, other]
        if 2 * area > union:
            counts[single[one]] += (area / union, 1, 0, 0)
            matched |= {("truth", one), ("found", other)}
    for one, category in single.items():
        if ("truth", one) not in matched:
            counts[category] += (0, 0, 0, 1)
    for other, category in categories.items():
        if ("found", other) in matched or not found_areas[other]:
            continue
        unknown = [UNLABELLED, *(one for one, kind in crowds.items() if kind == category)]
        if 2 * sum(pairs[one, other] for one in unknown) <= found_areas[other]:
            counts[category] += (0, 0, 1, 0)
    return counts


def panoptic_quality(counts: Counts, things: Mapping[int, bool]) -> dict[str, float]:
    """PQ, SQ, RQ in percent, each also with `_th` and `_st`; nan where there are no segments.

    Args:
        things: of each category of the dataset, whether it is one.
    """
    results = {}
    for end in KINDS:
        rows = [
            _quality(counts[category])
            for category, is_thing in things.items()
            if category in counts and (not end or is_thing == (end == "_th"))
        ]
        mean = 100 * np.mean(rows, axis=0) if rows else np.full(3, np.nan)
        results.update({f"{name}{end}": float(x) for name, x in zip(("PQ", "SQ", "RQ"), mean)})
    return results


def _quality(counts: np.ndarray) -> tuple[float, float, float]:
    iou, matched, wrong, missed = counts
    segments = matched + wrong / 2 + missed / 2
    return iou / segments, iou / matched if matched else 0.0, matched / segments


def _read_truth(path: str) -> tuple[dict[Any, dict], dict[int, bool]]:
    """The annotations by image, and of each category whether it is a thing."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        truth = {row["image_id"]: row for row in content["annotations"]}
        return truth, {row["id"]: bool(row["isthing"]) for row in content["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a COCO panoptic file: {error!r}") from error


def _read_ids(path: str) -> np.ndarray:
    """The segment of each pixel, which a picture holds in the base of 256."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.int64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return pixels @ (1, 256, 256**2)


def _by_place(places: Mapping[int, int]) -> dict[int, int]:
    return {place: category for category, place in places.items()}
