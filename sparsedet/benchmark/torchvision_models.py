"""torchvision's small Faster R-CNNs, to be timed beside detectron2's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torchvision.models import get_model
from torchvision.ops.misc import FrozenBatchNorm2d

from ..compress.surgery import replace_modules
from ..errors import InputError
from .counting import count_call, random_proposals

NAMES = ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")


class TorchvisionDetector(nn.Module):
    """A torchvision Faster R-CNN with random weights, called as a detectron2 model is.

    Its batch norms are frozen, as they are with pretrained weights. Its RoI heads get the same
    ``num_proposals`` random boxes in every image of a size, whatever its proposal generator finds.

    Args:
        name: one of ``NAMES``.
        height, width: pixels of the images, which are not resized; but the 320 model resizes every
            image to its own 320 pixels, whatever it is given.

    Raises:
        InputError: another name.
    """

    input_format = "RGB"

    def __init__(self, name: str, num_proposals: int, height: int, width: int):
        super().__init__()
        if name not in NAMES:
            raise InputError(
                f"torchvision:{name}: not a detector to time; one of {', '.join(NAMES)}"
            )
        size = {"min_size": min(height, width), "max_size": max(height, width)}
        self.model = get_model(
            name,
            weights=None,
            weights_backbone=None,
            rpn_post_nms_top_n_test=num_proposals,
            **({} if "_320_" in name else size),
        ).eval()
        norms = [norm for norm in self.model.modules() if isinstance(norm, nn.BatchNorm2d)]
        replace_modules(self.model, {n: FrozenBatchNorm2d(n.num_features) for n in norms})
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

        def fix_proposals(rpn, args, output):
            sizes = args[0].image_sizes  # after resizing
            proposals = [random_proposals(num_proposals, *size) for size in sizes]
            return [p.proposal_boxes.tensor.to(self.device) for p in proposals], output[1]

        self.model.rpn.register_forward_hook(fix_proposals)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, inputs: Sequence[Mapping[str, torch.Tensor]]) -> list[dict]:
        """Dicts with an "image" (3, H, W) of 0 to 255, to torchvision's detections in each."""
        return self.model([x["image"].to(self.device) / 255 for x in inputs])

    @torch.no_grad()
    def count_multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image of that size, as :func:`count_multiply_adds` has them."""
        image = torch.zeros(3, height, width, device=self.device)
        return count_call(self.model, [image])[0]
