"""What compression has to know of a detectron2 model: which boxes stay fixed, what answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from torch import nn

from ..checkpoint import SparseDetCheckpointer
from ..compress import Result, Task
from ..compress.candidates import dense_layers
from ..compress.entries import without_information
from ..compress.survey import COUNTED_BATCHES
from ..errors import InputError
from ..modeling import LazyCfgNode
from ..modeling.memory_format import run_trunks_in_channels_last_
from .config import compact_config
from .images import as_tested, load_images
from .lazy import write_compact
from .pictures import draw_boxes_of

ANSWERS = ("cls_score", "bbox_pred", "objectness_logits", "anchor_deltas", "predictor")
"""Ends of the names of the layers that predict classes and boxes. They are small, and they learn to
read what the compact layers give them."""


class DetectionTask(Task):
    """A detectron2 model, its heads looking at the same boxes in every run.

    All boxes follow from the proposals and from what the box predictors, several in a cascade, make
    of them. The first run on an image after :meth:`start` records both; later ones, of whatever the
    model has become or of a copy, go on with them instead of their own. A model without proposals
    (RetinaNet) just runs.

    Args:
        batches: lists of detectron2 inputs, ``[{"image": (3, H, W), "height": .., "width": ..}]``.
        cfg: of the dense model; needed to save what becomes of it. Costs are counted and timed at
            its INPUT.MIN_SIZE_TEST, whatever the size of the images in ``batches``; without it,
            there.
    """

    def __init__(self, batches: Iterable[Sequence[Mapping[str, Any]]], cfg: CfgNode | None = None):
        super().__init__(batches)
        self.cfg = cfg

    @classmethod
    def from_images(
        cls,
        cfg: CfgNode,
        folder: str | None = None,
        count: int = 100,
        progress: bool = False,
        smallest_side: int = 1,
        min_size: int | None = None,
    ) -> DetectionTask:
        """On ``count`` random images of a folder, or of DATASETS.TRAIN: see :func:`load_images`."""
        images = load_images(
            cfg, folder, count, progress=progress, smallest_side=smallest_side, min_size=min_size
        )
        return cls(images, cfg)

    @cached_property
    def deployed(self) -> Task:
        """On a few of the same images as the config tests them; itself if they are so already."""
        if self.cfg is None:
            return self
        few = self.batches[:: -(-len(self.batches) // COUNTED_BATCHES)]
        tested = [[as_tested(image, self.cfg.INPUT) for image in batch] for batch in few]
        if all(x is y for old, new in zip(few, tested) for x, y in zip(old, new)):
            return self
        return self.on(tested)

    def finish(self, model: nn.Module) -> None:
        """Let its trunk run in channels-last, as that of the saved model will."""
        run_trunks_in_channels_last_(model)

    def fixed(self, model: nn.Module) -> list[nn.Module]:
        """What all boxes follow from: the proposals, and what each box predictor makes of them."""
        predictors = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
        cascade = predictors if isinstance(predictors, nn.ModuleList) else [predictors]
        steps = [getattr(model, "proposal_generator", None), *cascade]
        return [step for step in steps if step is not None]

    def answers(self, model: nn.Module) -> list[str]:
        """Names of the dense layers that predict classes and boxes."""
        return [name for name in dense_layers(model) if name.endswith(ANSWERS)]

    def pictures(self, models: Mapping[str, nn.Module]) -> list[np.ndarray]:
        """The boxes that each of the models finds in some of the images, on the image."""
        return draw_boxes_of(models, [image for batch in self.batches for image in batch])

    def save(self, result: Result, folder: str, output: str) -> None:
        """Write config.yaml (.py of a LazyConfig) and model.pth to ``folder``, soon ``output``."""
        if self.cfg is None:
            raise InputError("the model has no config to save: give DetectionTask its cfg")
        if isinstance(self.cfg, LazyCfgNode):
            write_compact(self.cfg, without_information(result.plan), folder)
        else:
            compact = compact_config(self.cfg, result.plan, output)
            with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as file:
                file.write(compact.dump())
        SparseDetCheckpointer(result.model, folder).save("model")
