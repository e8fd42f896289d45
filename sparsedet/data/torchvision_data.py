"""Classification data sets of torchvision, by name, from where they are on this machine."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError

TRAIN, TESTS = "train", ("test", "val")


def read_labels(name: str, root: str, split: str) -> list[dict]:
    """One dict per image: dataset (name, root, split), index, image_id, label.

    Raises:
        InputError: as :func:`_open`.
    """
    data = _open(name, root, split)
    labels = getattr(data, "targets", None)
    if labels is None:
        labels = [data[index][1] for index in range(len(data))]
    return [
        {"dataset": (name, root, split), "index": i, "image_id": i, "label": int(label)}
        for i, label in enumerate(labels)
    ]


def read_classes(name: str, root: str) -> list[str]:
    """The names of the classes, in the order of the labels.

    Raises:
        InputError: as :func:`_open`, or the data set has none.
    """
    classes = getattr(_open(name, root, TRAIN), "classes", None)
    if not classes:
        raise InputError(f"dataset {name}: does not name its classes; give them by classes: [...]")
    return [c if isinstance(c, str) else ", ".join(c) for c in classes]


def read_pixels(dataset: tuple[str, str, str], index: int) -> np.ndarray:
    """(H, W, 3) uint8, RGB."""
    image = _open(*dataset)[index][0]
    if not isinstance(image, Image.Image):
        raise InputError(f"dataset {dataset[0]}: gives no pictures, but a {type(image).__name__}")
    return np.asarray(image.convert("RGB"))


@cache
def _open(name: str, root: str, split: str) -> Any:
    """The data set, whose images are read one by one or are all in memory, as torchvision has it.

    Raises:
        InputError: no such data set, it is not at ``root``, or it has no such split.
    """
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if name not in datasets.__all__ or not inspect.isclass(kind):
        raise InputError(f"dataset {name}: torchvision has none of this name")
    takes = inspect.signature(kind).parameters
    if "train" in takes:
        if split not in (TRAIN, *TESTS):
            raise InputError(f"dataset {name}: no split {split!r}; train or test")
        choice: dict[str, Any] = {"train": split == TRAIN}
    elif "split" in takes:
        choice = {"split": split}
    else:
        raise InputError(f"dataset {name}: has no splits, so it cannot be trained and tested on")
    try:
        return kind(root, **choice, **({"download": False} if "download" in takes else {}))
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"dataset {name}: {reason} ({root}); torchvision.datasets.{name}(root, download=True) "
            "puts it in place"
        ) from error
