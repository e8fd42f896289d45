"""What the exported forms of detectors share: boxes, in operators that ONNX has."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import nms

from ..compat import shape_as_tensor
from ..errors import InputError

LOWEST = -1e30  # below every score, and above that of a box that does not count


class Layers(nn.Module):
    """The layers of a head, without what it does with instances or targets."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head.layers(x)


def require_kind(part: object, name: str, kind: type) -> None:
    """Raise an InputError where a part of a model has another type than the known one."""
    if type(part) is not kind:
        raise InputError(
            f"a {type(part).__name__} cannot be exported: the {name} must be a {kind.__name__}"
        )


def anchors(feature: torch.Tensor, cells: torch.Tensor, stride: int, offset: float) -> torch.Tensor:
    """(H * W * A, 4): the cell anchors (A, 4) at every place of ``feature`` (1, C, H, W)."""
    y, x = ((torch.arange(n, device=cells.device) + offset) * stride for n in feature.shape[2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=2).to(cells)
    return (shifts[:, :, None] + cells).reshape(-1, 4)


def per_anchor(x: torch.Tensor, count: int) -> torch.Tensor:
    """(1, A * count, H, W), what a head gives, to (H * W * A, count)."""
    return x[0].permute(1, 2, 0).reshape(-1, count)


def clip(boxes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) inside x0, y0, x1, y1 of 0 and ``limits``."""
    return torch.minimum(boxes.clamp(min=0), limits)


def top(scores: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``most`` best of (N,) scores, or all of fewer, in descending order; and their indices."""
    k = torch.minimum(shape_as_tensor(scores)[0], torch.tensor(most))
    return scores.topk(k)


class NMS(torch.autograd.Function):
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


def detect(
    boxes: torch.Tensor, scores: torch.Tensor, iou: float, most: int, threshold: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Suppress within each class, then keep the best of all.

    Args:
        boxes: (K, R, 4), of each class.
        scores: (K, R).

    Returns:
        boxes (N, 4), scores (N,) and classes (N,), best first.
    """
    classes, index = NMS.apply(boxes, scores, iou, most, threshold).unbind(1)
    scores, best = top(scores[classes, index], most)
    return boxes[classes, index][best], scores, classes[best]
