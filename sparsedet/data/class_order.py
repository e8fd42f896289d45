"""Classes are matched by name, never by their place in a list."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from ..errors import InputError
from .image_sizes import upright_size
from .proposals import proposal_file, with_proposals


def dataset_classes(dataset: str) -> list[str]:
    """The names of the classes of a registered dataset, which is loaded if it does not say them."""
    metadata = MetadataCatalog.get(dataset)
    if not metadata.get("thing_classes"):
        DatasetCatalog.get(dataset)
    return list(metadata.get("thing_classes", ()))


def class_order(names: Sequence[str], others: Sequence[str], dataset: str) -> list[int]:
    """Where each of ``names``, a model's, stands in ``others``, those of ``dataset``.

    Raises:
        InputError: they are not the same names.
    """
    if list(names) == list(others):  # also where one of them is there twice
        return list(range(len(names)))
    if sorted(names) != sorted(others) or len(set(names)) < len(names):
        raise InputError(
            f"the model's classes are {', '.join(names)}, "
            f"but those of {dataset} are {', '.join(others)}; "
            "the names must be the same, in any order"
        )
    return [list(others).index(name) for name in names]


def training_records(cfg: CfgNode, class_names: Sequence[str]) -> list[dict]:
    """The dicts of DATASETS.TRAIN, whose category ids are places in ``class_names``, if any.

    detectron2 puts datasets together by their ids, whatever these are called in each.

    Raises:
        InputError: there is no dataset, or one has other classes.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty; name the dataset to train on")
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    records: list[dict] = []
    for dataset in cfg.DATASETS.TRAIN:
        found = get_detection_dataset_dicts(
            [dataset],
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=keypoints,
        )
        found = with_proposals(map(_sized, found), proposal_file(cfg, "TRAIN", dataset))
        if not class_names:  # of a model that tells none apart
            records += found
            continue
        places = class_order(class_names, dataset_classes(dataset), dataset)
        # The other way round: where each of the dataset's is in the model.
        order = sorted(range(len(places)), key=places.__getitem__)
        moved = places != sorted(places)
        records += [_in_order(record, order) for record in found] if moved else found
    return records


def _sized(record: dict) -> dict:
    """With its width and height, by which batches are made; semantic maps alone do not say them."""
    if "width" in record:
        return record
    width, height = upright_size(record["file_name"])
    return {**record, "width": width, "height": height}


def _in_order(record: dict, order: Sequence[int]) -> dict:
    annotations = [
        {**annotation, "category_id": order[annotation["category_id"]]}
        for annotation in record.get("annotations", ())
    ]
    return {**record, "annotations": annotations}
