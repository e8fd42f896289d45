"""Multiply-adds, of any call and of a detectron2 GeneralizedRCNN stage by stage."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..hooks import evaluating, plain_attention


@torch.no_grad()
def count_multiply_adds(
    model: nn.Module, height: int, width: int, num_proposals: int
) -> dict[str, int]:
    """Multiply-adds for one image, as :func:`counting` counts them.

    Args:
        model: a GeneralizedRCNN. It is evaluated, not changed; masks and keypoints do not count.
        height, width: of the resized image, in pixels; padded as the model pads it.
        num_proposals: number of (random) boxes that the box head gets, so that models compare
            on equal terms whatever their proposal generators find.

    Returns:
        multiply-adds of "backbone", "rpn_head" and "box_head" (its predictor included)
    """
    generator = model.proposal_generator
    with evaluating(model):
        image = torch.zeros(3, height, width, device=model.device)
        images = model.preprocess_image([{"image": image}])
        proposals = random_proposals(num_proposals, height, width).to(model.device)
        heads = copy.copy(model.roi_heads)  # of the same parts
        heads.mask_on = heads.keypoint_on = False
        backbone, features = count_call(model.backbone, images.tensor)
        maps = [features[name] for name in generator.in_features]
        rpn_head, _ = count_call(generator.rpn_head, maps)
        box_head, _ = count_call(heads, images, features, [proposals])
    return {"backbone": backbone, "rpn_head": rpn_head, "box_head": box_head}


def count_call(function: Callable, *inputs: Any) -> tuple[int, Any]:
    """Multiply-adds of ``function(*inputs)``, and what it gives."""
    with counting() as count:
        output = function(*inputs)
        return count(), output


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Yield a function that tells how many multiply-adds the block has run so far.

    Those of convolutions (deformable ones, too), linear layers and matrix products. Batch norm,
    resampling, pooling, RoIAlign, NMS and elementwise operations are cheap beside them and count as
    0. fvcore, which detectron2's tools use, counts an addition for each value that resampling
    gives, besides: 0.02% more for the backbone of detectron2's Faster R-CNN with R50-FPN, and else
    the same.

    Not within ``torch.inference_mode``, where older PyTorch hides the operations. Attention runs as
    the matrix products that it is made of: those of its fused forms are not seen.
    """
    deformable = {torch.ops.torchvision.deform_conv2d: _deformable}
    counter = FlopCounterMode(display=False, custom_mapping=deformable)
    with plain_attention(), counter:
        yield lambda: counter.get_total_flops() // 2  # it counts multiplications and additions


def _deformable(x: Any, weight: Any, *others: Any, out_shape: Any, **named: Any) -> int:
    """Multiplications and additions of a deformable convolution, of the shapes of its arguments."""
    batch, outputs, height, width = out_shape
    return 2 * batch * height * width * math.prod(weight)


def random_proposals(count: int, height: int, width: int) -> Instances:
    """``count`` boxes in an image of that size, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    return Instances(
        (height, width), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(count)
    )
