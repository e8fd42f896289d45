"""Parameters and multiply-adds of a detectron2 GeneralizedRCNN, stage by stage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.evaluation import inference_context
from detectron2.structures import Boxes, ImageList, Instances
from fvcore.nn import FlopCountAnalysis
from torch import nn


@torch.no_grad()
def count_flops(model: nn.Module, height: int, width: int, num_proposals: int) -> dict[str, int]:
    """Multiply-adds for one image, as fvcore counts them: one multiply-add is one flop.

    Convolutions, linear layers, matrix products and resampling count. Batch norm, RoIAlign,
    NMS and elementwise operations are cheap beside them and count as 0.

    Args:
        model: a GeneralizedRCNN that predicts boxes. It is evaluated, not changed.
        height, width: of the resized image, in pixels; padded as the model pads it.
        num_proposals: number of (random) boxes that the box head gets, so that models compare
            on equal terms whatever their proposal generators find.

    Returns:
        multiply-adds of "backbone", "rpn_head" and "box_head" (its predictor included)
    """
    with inference_context(model):
        image = torch.zeros(3, height, width, device=model.device)
        images = model.preprocess_image([{"image": image}])
        features = model.backbone(images.tensor)
        names, maps = list(features), list(features.values())
        proposals = random_proposals(num_proposals, height, width).to(model.device)

        def backbone(model, x):
            return list(model.backbone(x).values())

        def rpn_head(model, *maps):
            features = dict(zip(names, maps))
            generator = model.proposal_generator
            logits, deltas = generator.rpn_head([features[name] for name in generator.in_features])
            return [*logits, *deltas]

        def box_head(model, image, *maps):
            images = ImageList(image, [(height, width)])
            detections, _ = model.roi_heads(images, dict(zip(names, maps)), [proposals])
            return detections[0].pred_boxes.tensor

        return {
            "backbone": count_flops_of(model, backbone, images.tensor),
            "rpn_head": count_flops_of(model, rpn_head, *maps),
            "box_head": count_flops_of(model, box_head, images.tensor, *maps),
        }


def random_proposals(count: int, height: int, width: int) -> Instances:
    """``count`` boxes in an image of that size, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    return Instances(
        (height, width), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(count)
    )


class _Stage(nn.Module):
    """One stage of a model as a module from tensors to tensors, which is what fvcore traces."""

    def __init__(self, model: nn.Module, run: Callable):
        super().__init__()
        self.model = model
        self.run = run

    def forward(self, *tensors):
        return self.run(self.model, *tensors)


def count_flops_of(model: nn.Module, run: Callable, *tensors: torch.Tensor) -> int:
    """Multiply-adds of ``run(model, *tensors)``, which gives tensors, counted in the same way."""
    analysis = FlopCountAnalysis(_Stage(model, run).eval(), tensors)
    analysis.set_op_handle("aten::batch_norm", lambda inputs, outputs: 0)  # None would not do
    # The operations it does not know and the modules outside the stage are meant to count as 0.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    return int(analysis.total())
