"""What both evaluators do: keep the detections of every image, and hand them on by class name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ..data.class_order import class_order, dataset_classes
from ..errors import InputError


class ImageDetections(NamedTuple):
    """What was found in one image; `classes` are places in the dataset's list of names."""

    image_id: int | str
    boxes: np.ndarray  # (N, 4) float64, XYXY_ABS
    scores: np.ndarray  # (N,) float64
    classes: np.ndarray  # (N,) int64
    extras: Sequence[dict]  # N; more of COCO's fields


class MissingData(InputError):
    """A dataset does not have what an evaluator compares with."""


class BoxEvaluator(DatasetEvaluator):
    """Gathers boxes; a subclass makes numbers of them.

    Synchronises: call `evaluate` on every process.

    Args:
        dataset_name: a registered dataset.
        class_names: those of the model, in its own order; the dataset's if None.

    Raises:
        InputError: the dataset has other classes.
    """

    task = ""  # under which the numbers stand

    def __init__(self, dataset_name: str, class_names: Sequence[str] | None = None):
        self.dataset_name = dataset_name
        self.classes = dataset_classes(dataset_name)
        self.match(class_names or self.classes)
        self.reset()

    def match(self, class_names: Sequence[str]) -> None:
        """Take detections of a model whose classes these are, in its own order, from now on.

        Raises:
            InputError: the dataset has other classes.
        """
        order = class_order(class_names, self.classes, self.dataset_name)
        self._order = np.array(order, dtype=int)

    def reset(self) -> None:
        self._detections: list[ImageDetections] = []

    def process(self, inputs, outputs) -> None:
        for image, output in zip(inputs, outputs):
            found = field(output, "instances").to("cpu")
            self._detections.append(
                ImageDetections(
                    image["image_id"],
                    found.pred_boxes.tensor.double().numpy(),
                    found.scores.double().numpy(),
                    self._order[found.pred_classes.numpy()],
                    self.extras(found),
                )
            )

    def extras(self, found: Instances) -> list[dict]:
        """More of what COCO says of each detection, as its json has it."""
        return [{}] * len(found)

    def evaluate(self) -> dict:
        """The numbers under `task`, in percent; {} off the main process."""
        gathered = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return {}
        dataset = DatasetCatalog.get(self.dataset_name)
        if len({image["image_id"] for image in dataset}) < len(dataset):
            raise InputError(f"dataset {self.dataset_name}: two images have the same image_id")
        results = self.score(list(chain.from_iterable(gathered)), dataset)
        return OrderedDict([(self.task, results)])

    def score(self, detections: Sequence[ImageDetections], dataset: list[dict]) -> dict:
        """The numbers, from the detections and the dataset's dicts."""
        raise NotImplementedError


def field(output: Mapping[str, Any] | Instances, name: str) -> Any:
    """Part of what a model gives.

    Raises:
        InputError: it is not there.
    """
    fields = output.get_fields() if isinstance(output, Instances) else output
    if name not in fields:
        raise InputError(f"the model gives no {name}, but {', '.join(fields) or 'nothing'}")
    return fields[name]


def per_class(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """`AP-<name>` of each class; those of one name are told apart by their places."""
    repeated = {name for name in names if list(names).count(name) > 1}
    return {
        f"AP-{name} ({place})" if name in repeated else f"AP-{name}": float(value)
        for place, (name, value) in enumerate(zip(names, values))
    }
