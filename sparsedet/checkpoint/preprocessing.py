"""Which images a set of weights was trained on: channel order, mean and scale.

The same network with the wrong one of these still runs, and detects badly. So it is written beside
the weights, and compared with the model that loads them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .readers import NetworkFile

PREPROCESSING = {
    "caffe": {
        "FORMAT": "BGR",
        "PIXEL_MEAN": [103.939, 116.779, 123.68],
        "PIXEL_STD": [1.0, 1.0, 1.0],
    },
    "caffe_rgb": {  # Caffe's weights with the input channels of the first layer reversed
        "FORMAT": "RGB",
        "PIXEL_MEAN": [123.0, 117.0, 104.0],
        "PIXEL_STD": [1.0, 1.0, 1.0],
    },
    "torchvision": {
        "FORMAT": "RGB",
        "PIXEL_MEAN": [123.675, 116.28, 103.53],
        "PIXEL_STD": [58.395, 57.12, 57.375],
    },
}

# The first digits of the SHA-256 of published files, which their publishers put in the names.
PUBLISHED = {
    "8a719046": "torchvision",  # vgg11
    "19584684": "torchvision",  # vgg13
    "397923af": "torchvision",  # vgg16
    "dcbb9e9d": "torchvision",  # vgg19
    "6002323d": "torchvision",  # vgg11_bn
    "abd245e5": "torchvision",  # vgg13_bn
    "6c64b313": "torchvision",  # vgg16_bn
    "c79401a0": "torchvision",  # vgg19_bn
    "88682ab5": "caffe_rgb",  # torchvision's vgg16_features-amdegroot
    "00b39a1b": "caffe",  # jcjohnson's vgg16
    "d01eb7cb": "caffe",  # jcjohnson's vgg19
}


def infer_preprocessing(network: NetworkFile) -> str:
    """Name the preprocessing of ``network``: by the file's hash if published, else by its weights.

    Two properties of trained weights tell. *Scale*: pixels of 0 to 255 are about 60 times larger
    than normalised ones, and the convolutions must bring that down; their geometric mean gain,
    sqrt(fan_in) * rms(weight), without the first, is 0.63 in Caffe's VGG-16 and 1.17 in
    torchvision's (0.64 and 1.17 over conv1_2 to conv4_3). With batch norm it says nothing, but
    Caffe's models had none. *Channel order*: blue is the channel with the least weight in the
    first layer, 0.89 times red's in Caffe's and 0.83 times in torchvision's.

    Raises:
        InputError: the weights do not tell.
    """
    with open(network.path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest()[:8] in PUBLISHED:
        return PUBLISHED[digest.hexdigest()[:8]]

    gains = [conv.weight[0].numel() ** 0.5 * _rms(conv.weight) for conv in network.convs[1:]]
    gain = math.exp(sum(math.log(max(g, 1e-12)) for g in gains) / len(gains))
    first = network.convs[0].weight
    channel_ratio = _rms(first[:, 2]) / max(_rms(first[:, 0]), 1e-12)  # last over first
    blue_first, blue_last = channel_ratio > 1.08, channel_ratio < 0.92
    if network.convs[0].norm or gain > 0.95:
        if blue_last and not network.channels_last:  # Keras' VGGs are Caffe's
            return "torchvision"
    elif gain < 0.8 and blue_first:
        return "caffe"
    elif gain < 0.8 and blue_last:
        return "caffe_rgb"
    raise InputError(
        f"{network.path}: its weights do not tell the images that they were trained on; "
        f"add --preprocessing with one of {', '.join(PREPROCESSING)}"
    )


def model_preprocessing(model: nn.Module) -> dict | None:
    """What a detectron2 model does to its images, in the form of ``PREPROCESSING``, or None."""
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if not isinstance(mean, torch.Tensor) or not isinstance(std, torch.Tensor):
        return None
    return {
        "FORMAT": getattr(model, "input_format", None),
        "PIXEL_MEAN": [round(value, 4) for value in mean.flatten().tolist()],
        "PIXEL_STD": [round(value, 4) for value in std.flatten().tolist()],
    }


def read_preprocessing(checkpoint: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """What a checkpoint says of it; None where it says nothing.

    Raises:
        InputError: it is not in the form of ``PREPROCESSING``.
    """
    found = checkpoint.get("preprocessing")
    if not found:
        return None
    if (
        not isinstance(found, Mapping)
        or not isinstance(found.get("FORMAT", 0), (str, type(None)))
        or not all(_is_vector(found.get(key)) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    ):
        raise InputError(f"{path}: its preprocessing is not a FORMAT, PIXEL_MEAN and PIXEL_STD")
    return found


def _is_vector(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        type(number) is int or (type(number) is float and math.isfinite(number)) for number in value
    )


def same_preprocessing(a: dict, b: dict) -> bool:
    """Whether two agree, to 0.01 of a grey level; an unknown (None) FORMAT agrees with any."""
    if a["FORMAT"] and b["FORMAT"] and a["FORMAT"] != b["FORMAT"]:
        return False
    pairs = [(a[key], b[key]) for key in ("PIXEL_MEAN", "PIXEL_STD")]
    return all(len(x) == len(y) and all(abs(i - j) < 0.01 for i, j in zip(x, y)) for x, y in pairs)


def config_lines(preprocessing: dict) -> list[str]:
    """The three config keys that set ``preprocessing``, as ``KEY: value``."""
    keys = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
    return [f"{key}: {preprocessing[key.split('.')[1]]}" for key in keys]


def _rms(weight: torch.Tensor) -> float:
    return weight.double().square().mean().sqrt().item()
