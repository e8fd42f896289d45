"""R-CNNs: regions from a proposal network, and heads that tell what is in each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from detectron2.modeling import StandardROIHeads
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.roi_heads import (
    BaseKeypointRCNNHead,
    BaseMaskRCNNHead,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
)
from detectron2.structures import Boxes
from torch import nn

from ..errors import InputError
from .operators import Layers, clip, detect, require_kind, top
from .proposals import check_rpn, propose

Features = dict[str, torch.Tensor]


class RegionReader(nn.Module):
    """Boxes of an R-CNN and, where it has them, the mask and the keypoint maps of each.

    Masks are (N, M, M), the probabilities of each one's own class; keypoint maps (N, K, S, S).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        check_rpn(model.proposal_generator)
        check_heads(model.roi_heads)
        self.rpn = model.proposal_generator
        self.roi_heads = model.roi_heads
        self.outputs = ["boxes", "scores", "classes"]
        if self.roi_heads.mask_on:
            self.mask_head = Layers(self.roi_heads.mask_head)
            self.outputs.append("masks")
        if getattr(self.roi_heads, "keypoint_on", False):
            self.keypoint_head = Layers(self.roi_heads.keypoint_head)
            self.outputs.append("keypoint_maps")

    @property
    def score_threshold(self) -> float:
        return predictors(self.roi_heads)[-1].test_score_thresh

    def read(self, features: Features, limits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        proposals, _ = propose(self.rpn, features, limits)
        boxes, scores = self._look(features, proposals, limits)
        head = predictors(self.roi_heads)[-1]
        boxes = clip(boxes, limits).transpose(0, 1).expand(head.num_classes, -1, -1)
        rules = head.test_nms_thresh, head.test_topk_per_image, head.test_score_thresh
        boxes, scores, classes = detect(boxes, scores[:, :-1].t(), *rules)
        found = [boxes, scores, classes]
        if "masks" in self.outputs:
            found.append(self._masks(features, boxes, classes))
        if "keypoint_maps" in self.outputs:
            heads = self.roi_heads
            pooled = pool_in_order(
                heads.keypoint_pooler, features, heads.keypoint_in_features, boxes
            )
            found.append(self.keypoint_head(pooled))
        return tuple(found)

    def _look(
        self, features: Features, proposals: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (R, K or 1, 4) and scores (R, K + 1), background last, of what is in regions."""
        heads = self.roi_heads
        if isinstance(heads, Res5ROIHeads):
            pooled = pool_in_order(heads.pooler, features, heads.in_features, proposals)
            return _predict(heads.box_predictor, heads.res5(pooled).mean((2, 3)), proposals)
        if not isinstance(heads, CascadeROIHeads):
            proposals, pooled = pool(heads.box_pooler, features, heads.box_in_features, proposals)
            return _predict(heads.box_predictor, heads.box_head(pooled), proposals)
        return self._cascade(features, proposals, limits)

    def _cascade(
        self, features: Features, proposals: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the last stage the boxes (R, 1, 4), of all stages the mean of the scores."""
        heads, scores = self.roi_heads, []
        boxes = proposals[:, None]
        for box_head, predictor in zip(heads.box_head, heads.box_predictor):
            proposals = clip(boxes[:, 0], limits)
            pooled = pool_in_order(heads.box_pooler, features, heads.box_in_features, proposals)
            boxes, stage = _predict(predictor, box_head(pooled), proposals)
            scores.append(stage)
        return boxes, sum(scores) * (1.0 / len(scores))

    def _masks(
        self, features: Features, boxes: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        heads = self.roi_heads
        if isinstance(heads, Res5ROIHeads):
            pooled = heads.res5(pool_in_order(heads.pooler, features, heads.in_features, boxes))
        else:
            pooled = pool_in_order(heads.mask_pooler, features, heads.mask_in_features, boxes)
        logits = self.mask_head(pooled)
        if logits.shape[1] == 1:  # for all classes in common
            return logits[:, 0].sigmoid()
        return logits[torch.arange(classes.shape[0], device=classes.device), classes].sigmoid()


def predictors(heads: nn.Module) -> list[nn.Module]:
    """The last layers of each stage; but of a cascade, there is one."""
    return (
        list(heads.box_predictor) if isinstance(heads, CascadeROIHeads) else [heads.box_predictor]
    )


def check_heads(heads: nn.Module) -> None:
    """Raise an InputError that names the first part of ROI heads that has no exported form."""
    kinds = (StandardROIHeads, CascadeROIHeads, Res5ROIHeads)
    if type(heads) not in kinds:
        known = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(
            f"a {type(heads).__name__} cannot be exported: the ROI heads must be a {known}"
        )
    for predictor in predictors(heads):
        require_kind(predictor, "box predictor", FastRCNNOutputLayers)
        if predictor.test_topk_per_image < 1:
            raise InputError("TEST.DETECTIONS_PER_IMAGE must be at least 1 to export")
    shared = isinstance(heads, Res5ROIHeads)
    _check_pooler(heads.pooler if shared else heads.box_pooler, "BOX")
    for name, on, base in (
        ("mask", heads.mask_on, BaseMaskRCNNHead),
        ("keypoint", getattr(heads, "keypoint_on", False), BaseKeypointRCNNHead),
    ):
        if not on:
            continue
        head = getattr(heads, f"{name}_head")
        if not isinstance(head, base) or type(head).forward is not base.forward:
            raise InputError(
                f"a {type(head).__name__} cannot be exported: the {name} head must be a "
                f"{base.__name__} with its forward"
            )
        if not shared:
            _check_pooler(getattr(heads, f"{name}_pooler"), name.upper())


def _check_pooler(pooler: ROIPooler | None, name: str) -> None:
    if pooler is None or not all(isinstance(p, ROIAlign) for p in pooler.level_poolers):
        raise InputError(
            f"MODEL.ROI_{name}_HEAD.POOLER_TYPE: only ROIAlign and ROIAlignV2 can be exported"
        )


def _predict(
    predictor: FastRCNNOutputLayers, x: torch.Tensor, proposals: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (R, K or 1, 4) and scores (R, K + 1)."""
    logits, deltas = predictor(x)
    boxes = predictor.box2box_transform.apply_deltas(deltas, proposals)
    boxes = boxes.unflatten(1, (deltas.shape[1] // 4, 4))  # -1 does not work where R is 0
    return boxes, F.softmax(logits, dim=1)


def pool(
    pooler: ROIPooler, features: Features, names: list[str], boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The boxes, in the order of their levels, and their features (R, C, h, w)."""
    groups = [boxes[index] for index in _levels(pooler, boxes)] if len(names) > 1 else [boxes]
    return torch.cat(groups), _align(pooler, features, names, groups)


def pool_in_order(
    pooler: ROIPooler, features: Features, names: list[str], boxes: torch.Tensor
) -> torch.Tensor:
    """The features (R, C, h, w) of boxes, in their order."""
    if len(names) == 1:
        return _align(pooler, features, names, [boxes])
    places = [index.nonzero()[:, 0] for index in _levels(pooler, boxes)]
    pooled = _align(pooler, features, names, [boxes[place] for place in places])
    order = torch.cat(places)
    return pooled[top(-order.float(), 2**24)[1]]  # the first box is where its number stands


def _levels(pooler: ROIPooler, boxes: torch.Tensor) -> list[torch.Tensor]:
    """Which boxes (R,) belong to each level."""
    level = assign_boxes_to_levels(
        [Boxes(boxes)], pooler.min_level, pooler.max_level,
        pooler.canonical_box_size, pooler.canonical_level,
    )  # fmt: skip
    return [level == i for i in range(len(pooler.level_poolers))]


def _align(
    pooler: ROIPooler, features: Features, names: list[str], groups: list[torch.Tensor]
) -> torch.Tensor:
    return torch.cat(
        [
            align(features[name], F.pad(group, (1, 0)))  # the index of the image, 0, before a box
            for align, name, group in zip(pooler.level_poolers, names, groups)
        ]
    )
