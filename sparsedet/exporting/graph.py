"""A detectron2 model as one function of tensors, from pixels to what it finds.

It shares the model's submodules and writes anew only what lies between them, so that every shape
follows the input and every operator has its like in ONNX.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from detectron2.modeling import (
    GeneralizedRCNN,
    PanopticFPN,
    ProposalNetwork,
    RetinaNet,
    SemanticSegmentor,
)
from detectron2.modeling.meta_arch.fcos import FCOS
from torch import nn

from ..compat import shape_as_tensor
from ..errors import InputError
from .dense import DenseReader
from .proposals import ProposalReader
from .regions import RegionReader
from .semantic import SemanticReader

# What reads the features of each kind of model.
READERS = {
    GeneralizedRCNN: [RegionReader],
    PanopticFPN: [RegionReader, SemanticReader],
    RetinaNet: [DenseReader],
    FCOS: [DenseReader],
    ProposalNetwork: [ProposalReader],
    SemanticSegmentor: [SemanticReader],
}


def on_cpu(module: nn.Module) -> nn.Module:
    """The module itself, or a copy of it there if it is on a GPU.

    Files run on CPUs, and a GPU may compute convolutions in TF32, further from a file's than one
    that is compared with it may be.
    """
    if all(parameter.device.type == "cpu" for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to("cpu")


class DetectionGraph(nn.Module):
    """What ``model``, put in eval mode and :func:`on_cpu`, does with one image, without resizing.

    Input: image (H, W, 3) uint8, channels in the order of the model.

    Output, those of ``outputs`` in their order, best detection first, boxes in the pixels of the
    input and possibly empty:
        boxes (N, 4) float32, x0 y0 x1 y1; scores (N,) float32; classes (N,) int64;
        masks (N, M, M) float32, probabilities; keypoint_maps (N, K, S, S) float32, logits;
        semantic (C, h, w) float32, logits at a fraction of the padded input's size.

    Raises:
        InputError: a model of another kind, or a part of it that has no exported form.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        if type(model) not in READERS:
            known = ", ".join(kind.__name__ for kind in READERS)
            raise InputError(
                f"a {type(model).__name__} cannot be exported: the model must be one of {known}"
            )
        if getattr(model.backbone, "padding_constraints", {}).get("square_size"):
            raise InputError("a backbone that needs square images cannot be exported")
        model = on_cpu(model)
        self.backbone = model.backbone
        self.readers = nn.ModuleList(reader(model) for reader in READERS[type(model)])
        self.outputs = [name for reader in self.readers for name in reader.outputs]
        self.score_threshold = self.readers[0].score_threshold
        self.semantic_stride = getattr(self.readers[-1], "stride", 1)
        self.register_buffer("mean", model.pixel_mean)
        self.register_buffer("std", model.pixel_std)
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (image.permute(2, 0, 1).float() - self.mean) / self.std
        height, width = x.shape[1:]
        divisor = self.backbone.size_divisibility
        if divisor > 1:
            x = F.pad(x, (0, -width % divisor, 0, -height % divisor))
        features = self.backbone(x[None])
        # The largest x0, y0, x1, y1 inside the image.
        limits = shape_as_tensor(image)[[1, 0, 1, 0]].to(x)
        return tuple(found for reader in self.readers for found in reader.read(features, limits))


def panoptic_rules(model: nn.Module) -> dict[str, float]:
    """How ``model`` combines detections and semantic map, see :class:`ModelInfo`; {} if not."""
    if type(model) is not PanopticFPN:
        return {}
    return {
        "overlap": float(model.combine_overlap_thresh),
        "area": float(model.combine_stuff_area_thresh),
        "score": float(model.combine_instances_score_thresh),
    }
