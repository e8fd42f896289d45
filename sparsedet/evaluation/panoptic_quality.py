"""Panoptic quality (Kirillov et al., *Panoptic Segmentation*, arXiv 1801.00868).

As COCO's own panopticapi computes it, which is on no package index: a segment of the prediction
matches one of the ground truth of its category where their IoU, over what is annotated, is above a
half. Of a category with TP matches, FP and FN segments without,
PQ = sum of IoU / (TP + FP / 2 + FN / 2) = SQ * RQ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNLABELLED = 0  # the id of pixels that are annotated as nothing
KINDS = {"": "All", "_th": "Things", "_st": "Stuff"}

# Of a category: sum of IoU, TP, FP, FN.
Counts = Mapping[int, np.ndarray]


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
