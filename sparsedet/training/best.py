"""The checkpoint of the best metric, also over a run that was interrupted."""

from __future__ import annotations

import logging
import math

from detectron2.checkpoint import Checkpointer
from detectron2.engine import HookBase


class BestCheckpointer(HookBase):
    """Keeps ``model_best.pth``, the checkpoint with the largest value of a metric.

    What was best is part of every checkpoint: detectron2's hook of this name forgets it when a run
    is resumed, and takes the next model for the best. Without TEST.EVAL_PERIOD it only remembers.
    Register it after what evaluates.
    """

    def __init__(self, checkpointer: Checkpointer, metric: str):
        self.checkpointer, self.metric = checkpointer, metric
        self.best: float | None = None

    def after_step(self) -> None:
        if self.trainer.cfg.TEST.EVAL_PERIOD <= 0:
            return
        value, iteration = self.trainer.storage.latest().get(self.metric, (math.nan, 0))
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best = value
            self.checkpointer.save("model_best", iteration=iteration)
            logging.getLogger(__name__).info(f"{self.metric} is {value:.5f}, the best so far")

    after_train = after_step

    def state_dict(self) -> dict:
        return {"metric": self.metric, "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        if state["metric"] == self.metric:
            self.best = state["best"]
