"""Panoptic quality of any registered dataset with COCO's panoptic annotations."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.class_order import class_order, dataset_classes
from ..errors import InputError
from ..images import read_image
from ..json_files import read_json
from ..reports.tables import pipe_table
from .detections import MissingData, field
from .panoptic_quality import KINDS, count_segments, panoptic_quality


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
        self._truth, categories = _read_truth(path)
        self._things = {row["id"]: bool(row["isthing"]) for row in categories}
        self.classes = dataset_classes(dataset_name)
        # detectron2's models number things and stuff each from 0
        self._thing_ids = _places("thing", dataset_name, categories)
        self._stuff_ids = _places("stuff", dataset_name, categories)
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


def _read_truth(path: str) -> tuple[dict[Any, dict], list[dict]]:
    """The annotations by image, and the categories."""
    content, truth = read_json(path), {}
    try:
        categories = _objects(content, "categories", id=int, name=str)
        if not all(row.get("isthing") in (0, 1) for row in categories):
            raise ValueError("'isthing' of a category is not 0 or 1")
        known = {row["id"] for row in categories}
        for row in _objects(content, "annotations", file_name=str):
            name = row.get("image_id")
            if type(name) not in (int, str) or name in truth:
                raise ValueError(f"an 'image_id' is no id, or there twice: {str(name)[:40]}")
            segments = _objects(row, "segments_info", id=int, category_id=int)
            if len({segment["id"] for segment in segments}) < len(segments):
                raise ValueError(f"two segments of image {name} have one id")
            if not all(segment["category_id"] in known for segment in segments):
                raise ValueError(f"a segment of image {name} is of no category")
            if not all(segment.get("iscrowd", 0) in (0, 1) for segment in segments):
                raise ValueError(f"'iscrowd' of a segment of image {name} is not 0 or 1")
            truth[name] = row
    except ValueError as error:
        raise InputError(f"{path}: not a COCO panoptic file: {error}") from error
    return truth, categories


def _objects(content: Any, key: str, **kinds: type) -> list[dict]:
    """The list under a key, each of it with values of these kinds; ValueError if it is not."""
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"no list of {key!r}")
    for row in rows:
        for name, kind in kinds.items():
            if not isinstance(row, dict) or type(row.get(name)) is not kind:
                raise ValueError(f"{name!r} is missing or of another kind in {str(row)[:80]}")
    return rows


def _read_ids(path: str) -> np.ndarray:
    """The segment of each pixel, which a picture holds in the base of 256."""
    return read_image(path, "RGB").astype(np.int64) @ (1, 256, 256**2)


def _places(kind: str, dataset_name: str, categories: Sequence[Mapping]) -> dict[int, int]:
    """The category of each place among the things, or the stuff, of a dataset.

    Its metadata says it of detectron2's own data sets; otherwise they are matched by name.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("stuff_dataset_id_to_contiguous_id"):
        ids = metadata.get(f"{kind}_dataset_id_to_contiguous_id")
        return {place: category for category, place in ids.items()}
    ids = {
        row["name"]: row["id"] for row in categories if bool(row["isthing"]) == (kind == "thing")
    }
    names = list(metadata.get(f"{kind}_classes", ()))
    known = names[1:] if kind == "stuff" else names  # the first label of stuff is that of things
    if sorted(known) != sorted(ids):
        raise InputError(
            f"{kind}_classes of {dataset_name} are {', '.join(names)}, but those of "
            f"{metadata.panoptic_json} are {', '.join(ids)}"
        )
    return {names.index(name): ids[name] for name in known}
