"""One picture in, detections out."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from ..checkpoint import SparseDetCheckpointer


class Predictor(DefaultPredictor):
    """``DefaultPredictor`` that refuses weights which are not those of the config's model.

    Raises:
        InputError: no MODEL.WEIGHTS, or a file that does not fit.
    """

    def __init__(self, cfg: CfgNode):
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        super().__init__(without_weights)
        SparseDetCheckpointer(self.model, strict=True).load(cfg.MODEL.WEIGHTS)
