"""Detectors without regions: RetinaNet and FCOS, which predict at every place of every level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from torch import nn

from ..errors import InputError
from .operators import anchors, detect, per_anchor, require_kind, top


class DenseReader(nn.Module):
    """Boxes of a RetinaNet, or of an FCOS, whose head tells the centerness of places too."""

    outputs = ("boxes", "scores", "classes")

    def __init__(self, model: nn.Module):
        super().__init__()
        require_kind(model.anchor_generator, "anchor generator", DefaultAnchorGenerator)
        if model.max_detections_per_image < 1:
            raise InputError("TEST.DETECTIONS_PER_IMAGE must be at least 1 to export")
        self.head = model.head
        self.anchor_generator = model.anchor_generator
        self.names = model.head_in_features
        self.transform = model.box2box_transform
        self.num_classes = model.num_classes
        self.candidates = model.test_topk_candidates
        self.score_threshold = model.test_score_thresh
        self.iou, self.most = model.test_nms_thresh, model.max_detections_per_image

    def read(
        self, features: dict[str, torch.Tensor], limits: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        maps = [features[name] for name in self.names]
        generator = self.anchor_generator
        levels = [
            self._candidates(outputs, anchors(feature, cells, stride, generator.offset))
            for feature, cells, stride, outputs in zip(
                maps, generator.cell_anchors, generator.strides, zip(*self.head(maps))
            )
        ]
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels))
        # What is not of a class has no score there.
        known = torch.arange(self.num_classes, device=classes.device)[:, None] == classes
        scores = torch.where(known, scores, torch.zeros_like(scores))
        boxes = boxes[None].expand(self.num_classes, -1, -1)
        return detect(boxes, scores, self.iou, self.most, self.score_threshold)

    def _candidates(
        self, outputs: tuple[torch.Tensor, ...], places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes, scores and classes of the best of a level."""
        logits, deltas, *centerness = outputs
        scores = per_anchor(logits, self.num_classes).sigmoid()
        for x in centerness:
            scores = (scores * per_anchor(x, 1).sigmoid()).sqrt()
        scores, best = top(scores.flatten(), self.candidates)
        anchor = torch.div(best, self.num_classes, rounding_mode="floor")
        boxes = self._decode(per_anchor(deltas, 4)[anchor], places[anchor])
        return boxes, scores, best - anchor * self.num_classes

    def _decode(self, deltas: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.transform, Box2BoxTransformLinear):
            return self.transform.apply_deltas(deltas, places)
        # FCOS: the distances of the sides from the center; its own code assigns to slices.
        distances = F.relu(deltas)
        if self.transform.normalize_by_size:
            distances = distances * (places[:, 2:3] - places[:, 0:1])
        center = 0.5 * (places[:, :2] + places[:, 2:])
        return torch.cat((center - distances[:, :2], center + distances[:, 2:]), dim=1)
