"""A region proposal network, alone or before regions are looked at."""

from __future__ import annotations

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator import RPN
from torch import nn

from ..errors import InputError
from .operators import LOWEST, NMS, anchors, clip, per_anchor, require_kind, top


def check_rpn(rpn: nn.Module | None) -> None:
    """Raise an InputError that says why ``rpn`` has no exported form."""
    if rpn is None:
        raise InputError(
            "a model with precomputed proposals cannot be exported: the file would need them "
            "beside each image; give MODEL.PROPOSAL_GENERATOR.NAME RPN and train that"
        )
    require_kind(rpn, "proposal generator", RPN)
    require_kind(rpn.anchor_generator, "anchor generator", DefaultAnchorGenerator)


def propose(
    rpn: RPN, features: dict[str, torch.Tensor], limits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best boxes (R, 4) over all levels, after suppression within each, and their logits."""
    before, after = rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
    maps = [features[name] for name in rpn.in_features]
    generator = rpn.anchor_generator
    levels = []
    for feature, logits, deltas, cells, stride in zip(
        maps, *rpn.rpn_head(maps), generator.cell_anchors, generator.strides
    ):
        scores, best = top(per_anchor(logits, 1).flatten(), before)
        places = anchors(feature, cells, stride, generator.offset)
        boxes = rpn.box2box_transform.apply_deltas(per_anchor(deltas, 4)[best], places[best])
        boxes = clip(boxes, limits)
        size = boxes[:, 2:] - boxes[:, :2]
        scores = scores.masked_fill((size <= rpn.min_box_size).any(1), float("-inf"))
        kept = NMS.apply(boxes[None], scores[None], rpn.nms_thresh, after, LOWEST)[:, 1]
        levels.append((boxes[kept], scores[kept]))
    if len(levels) == 1:
        return levels[0]
    boxes, scores = (torch.cat(parts) for parts in zip(*levels))
    scores, best = top(scores, after)
    return boxes[best], scores


class ProposalReader(nn.Module):
    """Proposals as detections of one class; a score is the sigmoid of the objectness logit."""

    outputs = ("boxes", "scores", "classes")
    score_threshold = 0.0

    def __init__(self, model: nn.Module):
        super().__init__()
        check_rpn(model.proposal_generator)
        self.rpn = model.proposal_generator

    def read(
        self, features: dict[str, torch.Tensor], limits: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        boxes, logits = propose(self.rpn, features, limits)
        return boxes, logits.sigmoid(), torch.zeros_like(logits, dtype=torch.int64)
