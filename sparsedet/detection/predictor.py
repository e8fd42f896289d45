"""One picture in, detections out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.engine import DefaultPredictor
from detectron2.modeling import Backbone
from torch import nn

from ..checkpoint import model_class_names
from ..errors import InputError
from ..modeling import is_classifier
from ..runtime.detections import Detections
from ..runtime.detector import resized_shape
from .config import check_proposals
from .labels import model_labels
from .load import load_model, model_config
from .outputs import to_detections


class Predictor(DefaultPredictor):
    """``DefaultPredictor`` that refuses weights which are not those of the config's model.

    Raises:
        InputError: no MODEL.WEIGHTS, or a file that does not fit; or a model that does not run on
            images alone.
    """

    def __init__(self, cfg: CfgNode):
        self._set_up(load_model(cfg))

    @classmethod
    def of(cls, model: nn.Module) -> Predictor:
        """A predictor that runs a model of :func:`load_model`, and not a copy of it.

        Raises:
            InputError: the model carries no config.
        """
        predictor = cls.__new__(cls)
        predictor._set_up(model)
        return predictor

    def _set_up(self, model: nn.Module) -> None:
        """What ``DefaultPredictor`` sets up."""
        cfg = model_config(model)
        if is_classifier(cfg):
            raise InputError(
                "MODEL.META_ARCHITECTURE: a classifier finds no boxes; sparsedet export writes a "
                "file of it, which sparsedet predict runs"
            )
        check_proposals(cfg)
        self.cfg, self.model = cfg.clone(), model.eval()
        self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else None
        names = model_class_names(model)
        if names:  # in the order of the model, which need not be that of a dataset
            self.metadata = Metadata(name="the model's classes", thing_classes=names)
        self.aug = T.ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )
        self.input_format = cfg.INPUT.FORMAT

    def detect(self, image: np.ndarray, names: Sequence[str]) -> Detections:
        """Detect in (H, W, 3) uint8, BGR; ``names`` are those of the classes.

        Raises:
            InputError: the image is too narrow for the model.
        """
        return to_detections(self.run(image), names, model_labels(self.cfg, self.model, names))

    def run(self, image: np.ndarray) -> dict[str, Any]:
        """What the model gives of (H, W, 3) uint8, BGR, in detectron2's form.

        Raises:
            InputError: the image is too narrow for the model.
        """
        height, width = image.shape[:2]
        size = self.cfg.INPUT
        resized = resized_shape(height, width, size.MIN_SIZE_TEST, size.MAX_SIZE_TEST)
        if min(resized) < smallest_side(self.model):
            raise InputError(f"{width} x {height} pixels are too narrow for the model")
        return self(image)


def refuse_narrow(model: nn.Module, args: tuple) -> None:
    """A forward pre-hook of a detectron2 model.

    Raises:
        InputError: an image is too narrow for the model; it names the file.
    """
    least = smallest_side(model)
    for image in args[0]:
        height, width = image["image"].shape[-2:]
        if min(height, width) < least:
            name = image.get("file_name", "an image")
            raise InputError(
                f"{name}: {width} x {height} pixels after resizing are too narrow for the model, "
                f"whose least is {least}; leave it out of the dataset"
            )


def smallest_side(model: nn.Module) -> int:
    """The least pixels that each side of an image must have, after resizing."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone) or backbone.size_divisibility:
        return 1  # it is padded
    return max(feature.stride for feature in backbone.output_shape().values())
