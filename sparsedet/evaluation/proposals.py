"""How many objects a proposal generator finds, for any registered detection dataset."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain

from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, coco_evaluation
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from ..compat import proposal_recall
from .coco_tables import table, truth_row
from .detections import MissingData, field

AREAS = {"all": "", "small": "s", "medium": "m", "large": "l"}
LIMITS = (100, 1000)


class ProposalEvaluator(DatasetEvaluator):
    """Average recall over IoU 0.5 to 0.95, as detectron2 computes it, classes aside.

    Gives `AR@100`, `ARs@100`, ..., `ARl@1000` in percent: of the best 100 and 1000 proposals of an
    image, and of small, medium and large objects. Crowds do not count.

    Synchronises: call `evaluate` on every process.

    Raises:
        MissingData: the dataset has no objects.
    """

    task = "box_proposals"

    def __init__(self, dataset_name: str):
        self._dataset = DatasetCatalog.get(dataset_name)
        if not any(image.get("annotations") for image in self._dataset):
            raise MissingData(f"{dataset_name} has no objects")
        self._numbers = {image["image_id"]: i for i, image in enumerate(self._dataset, start=1)}
        self.reset()

    def reset(self) -> None:
        self._proposals: list[tuple[int, Instances]] = []

    def process(self, inputs, outputs) -> None:
        for image, output in zip(inputs, outputs):
            proposals = field(output, "proposals").to("cpu")
            self._proposals.append((self._numbers[image["image_id"]], proposals))

    def evaluate(self) -> dict:
        gathered = comm.gather(self._proposals, dst=0)
        if not comm.is_main_process():
            return {}
        results = recall(list(chain.from_iterable(gathered)), self._dataset)
        logging.getLogger(__name__).info("Proposals:\n%s", create_small_table(results))
        return OrderedDict([(self.task, results)])


def recall(proposals: Sequence[tuple[int, Instances]], dataset: Sequence[dict]) -> dict[str, float]:
    """Those of :class:`ProposalEvaluator`, of (number from 1, proposals) of every image."""
    rows = [
        truth_row(number, obj, "bbox", 0)
        for number, image in enumerate(dataset, start=1)
        for obj in image.get("annotations", ())
    ]
    truth = table(rows, [(image.get("height"), image.get("width")) for image in dataset], 1)
    found = [{"image_id": number, "proposals": instances} for number, instances in proposals]
    return {
        f"AR{letter}@{limit}": 100 * proposal_recall(coco_evaluation, found, truth, area, limit)
        for limit in LIMITS
        for area, letter in AREAS.items()
    }
