"""Classes are matched by name, never by their place in a list."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError


def dataset_classes(dataset: str) -> list[str]:
    """The names of the classes of a registered dataset, which is loaded if it does not say them."""
    metadata = MetadataCatalog.get(dataset)
    if not metadata.get("thing_classes"):
        DatasetCatalog.get(dataset)
    return list(metadata.get("thing_classes", ()))


def class_order(names: Sequence[str], others: Sequence[str], dataset: str) -> list[int]:
    """Where each of ``names`` stands in ``others``.

    Args:
        names: of a model's classes.
        others: of those of ``dataset``.

    Raises:
        InputError: they are not the same names.
    """
    if list(names) == list(others):  # also where one of them is there twice
        return list(range(len(names)))
    if sorted(names) != sorted(others) or len(set(names)) < len(names):
        raise InputError(
            f"the model was trained for the classes {', '.join(names)}, "
            f"but those of {dataset} are {', '.join(others)}"
        )
    return [list(others).index(name) for name in names]
