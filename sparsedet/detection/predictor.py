"""One picture in, detections out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.engine import DefaultPredictor
from detectron2.modeling import Backbone
from torch import nn

from ..checkpoint import SparseDetCheckpointer
from ..errors import InputError
from ..runtime.detector import Detections
from .build import building
from .load import model_config


class Predictor(DefaultPredictor):
    """``DefaultPredictor`` that refuses weights which are not those of the config's model.

    Raises:
        InputError: no MODEL.WEIGHTS, or a file that does not fit.
    """

    def __init__(self, cfg: CfgNode):
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        with building("the model"):
            super().__init__(without_weights)
        SparseDetCheckpointer(self.model, strict=True).load(cfg.MODEL.WEIGHTS)

    @classmethod
    def of(cls, model: nn.Module) -> Predictor:
        """A predictor that runs a model of :func:`load_model`, and not a copy of it.

        Raises:
            InputError: the model carries no config.
        """
        cfg = model_config(model)
        predictor = cls.__new__(cls)
        predictor.cfg, predictor.model = cfg.clone(), model.eval()
        predictor.metadata = (
            MetadataCatalog.get(cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else None
        )
        predictor.aug = T.ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )
        predictor.input_format = cfg.INPUT.FORMAT
        return predictor

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


def smallest_side(backbone: Backbone) -> int:
    """The least pixels that each side of an image must have."""
    if backbone.size_divisibility:
        return 1  # it is padded
    return max(feature.stride for feature in backbone.output_shape().values())
