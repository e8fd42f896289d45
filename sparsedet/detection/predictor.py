"""One picture in, detections out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from ..checkpoint import SparseDetCheckpointer
from ..errors import InputError
from ..exporting.graph import smallest_side
from ..runtime.detector import Detections


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

    def detect(self, image: np.ndarray, names: Sequence[str]) -> Detections:
        """Detect in (H, W, 3) uint8, BGR; ``names`` are those of the classes.

        Raises:
            InputError: the image is too narrow for the model.
        """
        height, width = image.shape[:2]
        resize = self.aug.get_transform(image)
        if min(resize.new_h, resize.new_w) < smallest_side(self.model.backbone):
            raise InputError(f"{width} x {height} pixels are too narrow for the model")
        found = self(image)["instances"].to("cpu")
        found = found[found.scores.argsort(descending=True)]
        classes = found.pred_classes.numpy()
        boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
        return Detections(boxes, scores, classes, [names[c] for c in classes])
