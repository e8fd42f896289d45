"""A detectron2 Faster R-CNN as one function of tensors, from pixels to detections.

It shares the model's submodules and writes anew only what lies between them, so that every shape
follows the input and every operator has its like in ONNX.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN, StandardROIHeads
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes
from torch import nn
from torchvision.ops import nms

from ..compat import shape_as_tensor
from ..errors import InputError

LOWEST = -1e30  # below every score, and above that of a box that does not count


class DetectionGraph(nn.Module):
    """What ``model``, put in eval mode, does with one image, without resizing.

    Input: image (H, W, 3) uint8, channels in the order of ``model.input_format``.

    Output, best detection first, boxes in the pixels of the input and possibly empty:
        boxes (N, 4) float32, x0 y0 x1 y1; scores (N,) float32; classes (N,) int64.

    Raises:
        InputError: a model that is not a Faster R-CNN with boxes alone.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        check_exportable(model)
        self.backbone = model.backbone
        self.rpn = model.proposal_generator
        self.roi_heads = model.roi_heads
        self.register_buffer("mean", model.pixel_mean)
        self.register_buffer("std", model.pixel_std)
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = (image.permute(2, 0, 1).float() - self.mean) / self.std
        height, width = x.shape[1:]
        divisor = self.backbone.size_divisibility
        if divisor > 1:
            x = F.pad(x, (0, -width % divisor, 0, -height % divisor))
        features = self.backbone(x[None])
        # The largest x0, y0, x1, y1 inside the image.
        limits = shape_as_tensor(image)[[1, 0, 1, 0]].to(x)
        proposals = self._propose([features[name] for name in self.rpn.in_features], limits)
        box_features = [features[name] for name in self.roi_heads.box_in_features]
        proposals, pooled = self._pool(box_features, proposals)
        return self._detect(self.roi_heads.box_head(pooled), proposals, limits)

    def _propose(self, features: list[torch.Tensor], limits: torch.Tensor) -> torch.Tensor:
        """(R, 4): the best boxes over all levels, after suppression within each level."""
        rpn = self.rpn
        before, after = rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
        levels = []
        for feature, logits, deltas, cells, stride in zip(
            features, *rpn.rpn_head(features), rpn.anchor_generator.cell_anchors,
            rpn.anchor_generator.strides,
        ):  # fmt: skip
            # A anchors at each of H x W places: (1, A, H, W) to (H * W * A,), and the like.
            scores = logits[0].permute(1, 2, 0).flatten()
            deltas = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
            anchors = _anchors(feature, cells, stride, rpn.anchor_generator.offset)
            scores, best = _top(scores, before)
            boxes = rpn.box2box_transform.apply_deltas(deltas[best], anchors[best])
            boxes = _clip(boxes, limits)
            size = boxes[:, 2:] - boxes[:, :2]
            scores = scores.masked_fill((size <= rpn.min_box_size).any(1), float("-inf"))
            kept = _NMS.apply(boxes[None], scores[None], rpn.nms_thresh, after, LOWEST)[:, 1]
            levels.append((boxes[kept], scores[kept]))
        if len(levels) == 1:
            return levels[0][0]
        boxes, scores = (torch.cat(parts) for parts in zip(*levels))
        return boxes[_top(scores, after)[1]]

    def _pool(
        self, features: list[torch.Tensor], boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes, in another order, and their features (R, C, h, w)."""
        pooler = self.roi_heads.box_pooler
        groups = [boxes]
        if len(features) > 1:
            level = assign_boxes_to_levels(
                [Boxes(boxes)], pooler.min_level, pooler.max_level,
                pooler.canonical_box_size, pooler.canonical_level,
            )  # fmt: skip
            groups = [boxes[level == i] for i in range(len(features))]
        pooled = [
            align(feature, F.pad(group, (1, 0)))  # the index of the image, 0, before each box
            for align, feature, group in zip(pooler.level_poolers, features, groups)
        ]
        return torch.cat(groups), torch.cat(pooled)

    def _detect(self, x: torch.Tensor, proposals: torch.Tensor, limits: torch.Tensor):
        head = self.roi_heads.box_predictor
        logits, deltas = head(x)
        boxes = head.box2box_transform.apply_deltas(deltas, proposals)
        boxes = boxes.unflatten(1, (deltas.shape[1] // 4, 4))  # -1 does not work where R is 0
        boxes = _clip(boxes, limits).transpose(0, 1)  # (K or 1, R, 4)
        scores = F.softmax(logits, dim=1)[:, :-1].t()  # (K, R)
        boxes = boxes.expand(head.num_classes, -1, -1)
        most = head.test_topk_per_image
        kept = _NMS.apply(boxes, scores, head.test_nms_thresh, most, head.test_score_thresh)
        classes, index = kept.unbind(1)
        scores, best = _top(scores[classes, index], most)
        return boxes[classes, index][best], scores, classes[best]


def check_exportable(model: nn.Module) -> None:
    """Raise an InputError that names the first part of ``model`` that has no exported form."""
    heads = getattr(model, "roi_heads", None)
    rpn = getattr(model, "proposal_generator", None)
    for name, part, kind in (
        ("model", model, GeneralizedRCNN),
        ("proposal generator", rpn, RPN),
        ("anchor generator", getattr(rpn, "anchor_generator", None), DefaultAnchorGenerator),
        ("ROI heads", heads, StandardROIHeads),
        ("box predictor", getattr(heads, "box_predictor", None), FastRCNNOutputLayers),
    ):
        if type(part) is not kind:
            raise InputError(
                f"a {type(part).__name__} cannot be exported: the {name} must be a {kind.__name__}"
            )
    if heads.mask_on or heads.keypoint_on:
        raise InputError(
            "masks and keypoints cannot be exported: set MODEL.MASK_ON False, "
            "MODEL.KEYPOINT_ON False"
        )
    if not all(isinstance(pooler, ROIAlign) for pooler in heads.box_pooler.level_poolers):
        raise InputError(
            "MODEL.ROI_BOX_HEAD.POOLER_TYPE: only ROIAlign and ROIAlignV2 can be exported"
        )
    if heads.box_predictor.test_topk_per_image < 1:
        raise InputError("TEST.DETECTIONS_PER_IMAGE must be at least 1 to export")


def _anchors(
    feature: torch.Tensor, cells: torch.Tensor, stride: int, offset: float
) -> torch.Tensor:
    """(H * W * A, 4): the cell anchors (A, 4) at every place of ``feature`` (1, C, H, W)."""
    y, x = ((torch.arange(n, device=cells.device) + offset) * stride for n in feature.shape[2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=2).to(cells)
    return (shifts[:, :, None] + cells).reshape(-1, 4)


def _clip(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)


def _top(scores: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``most`` best of (N,) scores, or all of fewer, in descending order; and their indices."""
    k = torch.minimum(shape_as_tensor(scores)[0], torch.tensor(most))
    return scores.topk(k)


class _NMS(torch.autograd.Function):
    """Non-maximum suppression in each of several sets of boxes, as the ONNX operator does it.

    Args:
        boxes (B, R, 4) and scores (B, R).
        iou: boxes that overlap a better one by more are dropped.
        most: boxes kept of each set.
        threshold: boxes of no greater score are dropped.

    Returns:
        (N, 2) int64: set and index of each box kept.
    """

    @staticmethod
    def forward(ctx, boxes, scores, iou, most, threshold):
        kept = []
        for i in range(len(boxes)):
            valid = (scores[i] > threshold).nonzero()[:, 0]
            best = valid[nms(boxes[i, valid], scores[i, valid], iou)[:most]]
            kept.append(torch.stack((torch.full_like(best, i), best), dim=1))
        return torch.cat(kept)

    @staticmethod
    def symbolic(g, boxes, scores, iou, most, threshold):
        def constant(value, dtype):
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        axis = constant(1, torch.int64)
        kept = g.op(
            "NonMaxSuppression",
            boxes,
            g.op("Unsqueeze", scores, axis),
            constant(most, torch.int64),
            constant(iou, torch.float32),
            constant(threshold, torch.float32),
        )
        # Its rows are set, class (always the first) and index.
        columns = g.op("Constant", value_t=torch.tensor([0, 2]))
        kept = g.op("Gather", kept, columns, axis_i=1)
        kept.setType(boxes.type().with_dtype(torch.int64).with_sizes([None, 2]))
        return kept
