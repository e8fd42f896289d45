"""Top-1 and top-5: the share of images whose class is the first, or among the first five."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.class_order import class_order, dataset_classes

BEST = 5


class TopKEvaluator(DatasetEvaluator):
    """{"classification": {"top1", "top5"}}, in percent, over all processes.

    Args:
        dataset: a registered data set, whose labels are places in its own classes.

    Raises (``match``):
        InputError: the data set has other classes than the model.
    """

    def __init__(self, dataset: str):
        self.dataset = dataset
        self.order: Sequence[int] | None = None
        self.reset()

    def match(self, class_names: Sequence[str]) -> None:
        """Take the probabilities as those of these classes, in this order."""
        self.order = class_order(class_names, dataset_classes(self.dataset), self.dataset)

    def reset(self) -> None:
        self.images = self.first = self.among = 0

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        for x, found in zip(inputs, outputs):
            best = found["probabilities"].topk(min(BEST, len(found["probabilities"]))).indices
            best = [self.order[i] if self.order else i for i in best.tolist()]
            self.images += 1
            self.first += best[0] == x["label"]
            self.among += x["label"] in best

    def evaluate(self) -> dict[str, dict[str, float]]:
        counts = comm.gather((self.images, self.first, self.among))
        if not comm.is_main_process():
            return {}
        images, first, among = map(sum, zip(*counts))
        return {"classification": {"top1": 100 * first / images, "top5": 100 * among / images}}
