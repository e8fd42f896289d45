"""Networks that classify images, by the names that torchvision and timm give them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torchvision import models

from ..errors import InputError
from ..extras import require
from .vgg import CHANNELS, CONVS_PER_STAGE

TIMM = "timm:"  # before the name of a model there
OTHER_TASKS = re.compile(
    r"torchvision\.models\.(detection|optical_flow|quantization|segmentation|video)"
)
# Without their auxiliary classifiers: batch norm trains the deep ones without.
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build_network(name: str, num_classes: int) -> nn.Module:
    """Images (N, 3, H, W), normalised, to logits (N, num_classes); random weights.

    Raises:
        InputError: no such network, or timm is missing.
    """
    if name.startswith(TIMM):
        timm = require("timm", f"MODEL.CLASSIFIER.NAME {name}:")
        if name.removeprefix(TIMM) not in timm.list_models():
            raise InputError(_unknown(name, [TIMM + known for known in timm.list_models()]))
        return timm.create_model(name.removeprefix(TIMM), num_classes=num_classes)
    if name in OWN:
        return OWN[name](num_classes=num_classes)
    if name not in models.list_models():
        raise InputError(_unknown(name, [*OWN, *models.list_models()]))
    if OTHER_TASKS.match(models.get_model_builder(name).__module__):
        raise InputError(f"MODEL.CLASSIFIER.NAME: torchvision's {name} does not classify images")
    return models.get_model(name, weights=None, num_classes=num_classes, **PLAIN.get(name, {}))


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "such as vgg16, resnet50, googlenet"
    return f"MODEL.CLASSIFIER.NAME: there is no {name!r}; {hint}"


class VGGWithGlobalPooling(nn.Module):
    """VGG-16's convolutions, global average pooling and one fully connected layer.

    As Zhou et al. (arXiv 1512.04150) cut VGG for class activation maps: without pool5 and what
    follows it; the convolution that they put in its place is left out. Parameters have
    torchvision's names.
    """

    def __init__(self, num_classes: int = 1000, width_multiplier: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage, (count, channels) in enumerate(zip(CONVS_PER_STAGE[16], CHANNELS)):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                wider = round(channels * width_multiplier)
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU(inplace=True)]
                width = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)
        for conv in self.features:
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) to logits (N, num_classes)."""
        return self.classifier(self.features(x).mean((2, 3)))


OWN: dict[str, Callable[..., nn.Module]] = {"vgg16_gap": VGGWithGlobalPooling}
"""Networks of this package by name, each called with ``num_classes``; others may be added."""
