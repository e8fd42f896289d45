"""Images with one label each, of any registered data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ..data.class_order import class_order, dataset_classes
from ..errors import InputError


def labelled_records(dataset: str, class_names: Sequence[str]) -> list[dict]:
    """The dicts of a registered data set, each with a "label": a place in ``class_names``.

    Where images have boxes instead, the label is the class of the largest one, and "boxes" are
    those of this class, XYXY_ABS; images without any are left out.

    Raises:
        InputError: the data set has other classes, or no image with a label.
    """
    places = class_order(class_names, dataset_classes(dataset), dataset)
    order = sorted(range(len(places)), key=places.__getitem__)  # from the data set to the model
    try:
        found = DatasetCatalog.get(dataset)
    except OSError as error:  # of a data set that detectron2 registers
        raise InputError(f"DATASETS: {dataset}: {error}") from error
    records = [record if "label" in record else _main_class(record) for record in found]
    kept = [{**record, "label": order[record["label"]]} for record in records if record]
    if not kept:
        raise InputError(f"DATASETS: {dataset}: no image in it has a class")
    if len(kept) < len(records):
        logging.getLogger(__name__).warning(
            "%s: %d of %d images have no box, so no class, and are left out",
            *(dataset, len(records) - len(kept), len(records)),
        )
    return kept


def training_records(cfg: CfgNode, class_names: Sequence[str]) -> list[dict]:
    """Those of all of DATASETS.TRAIN; errors as of :func:`labelled_records`."""
    return [r for dataset in cfg.DATASETS.TRAIN for r in labelled_records(dataset, class_names)]


def _main_class(record: dict) -> dict | None:
    objects = [
        (BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS), a["category_id"])
        for a in record.get("annotations", ())
        if not a.get("iscrowd", 0)
    ]
    if not objects:
        return None
    _, label = max(objects, key=lambda o: (o[0][2] - o[0][0]) * (o[0][3] - o[0][1]))
    boxes = [list(box) for box, category in objects if category == label]
    kept = {key: value for key, value in record.items() if key != "annotations"}
    return {**kept, "label": label, "boxes": boxes}
