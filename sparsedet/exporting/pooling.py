"""detectron2's RoI poolers as CPUs run them soonest: channels-last, as sums over pixels."""

from __future__ import annotations

import torch
from detectron2.layers import ROIAlign, nonzero_tuple
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import nn

from .. import compat
from ..layers.roi_align import roi_align


def pool_by_sums_(model: nn.Module) -> None:
    """Let every RoIAlign of the model, on all its levels, run as :func:`roi_align`."""
    for module in model.modules():
        if type(module) is ROIAlign:
            compat.become(module, _SumsROIAlign)
    for module in model.modules():
        if type(module) is ROIPooler and all(
            isinstance(level, _SumsROIAlign) for level in module.level_poolers
        ):
            compat.become(module, _ChannelsLastROIPooler)


class _SumsROIAlign(ROIAlign):
    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.float32:
            return super().forward(input, rois)
        size = compat.pair(self.output_size)
        sampling = self.spatial_scale, self.sampling_ratio, self.aligned
        return roi_align(input, rois.float(), size, *sampling)


class _ChannelsLastROIPooler(ROIPooler):
    """A pooler whose levels write channels-last rows, each in one piece, into one output."""

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        if len(self.level_poolers) == 1 or not box_lists:
            return super().forward(x, box_lists)
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        output = x[0].new_empty(len(rois), *self.output_size, x[0].shape[1])
        for level, pooler in enumerate(self.level_poolers):
            indices = nonzero_tuple(levels == level)[0]
            output[indices] = pooler(x[level], rois[indices]).permute(0, 2, 3, 1)
        return output.permute(0, 3, 1, 2)
