"""Weights that others trained, of a library or a file, as an ImageClassifier's checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models

from ..checkpoint import PREPROCESSING
from ..checkpoint.class_names import KEY, read_class_names
from ..checkpoint.preprocessing import read_preprocessing
from ..checkpoint.state_dicts import named_tensors, read_checkpoint, unwrap
from ..errors import InputError
from ..extras import require
from ..modeling.networks import OWN, TIMM
from .backbones import vgg_names

WORDNET = re.compile(r"n\d{8}")  # ImageNet's names of its folders


@dataclass(frozen=True)
class Pretrained:
    """Weights under a network's own names, and what they need.

    Attributes:
        class_names: in the order of the outputs; None if they are not known.
        preprocessing: in the form of ``PREPROCESSING``.
    """

    weights: Mapping[str, torch.Tensor]
    class_names: Sequence[str] | None
    preprocessing: Mapping[str, object]

    def checkpoint(self, classes: Sequence[str]) -> dict:
        """What ``torch.save`` should write, for a data set of these classes.

        The folders of ImageNet, sorted, are in the order of its 1000 classes, which is that of the
        published weights.
        """
        names = self.class_names
        if names and len(names) == len(classes) == 1000 and all(map(WORDNET.fullmatch, classes)):
            names = sorted(classes)
        data = {
            "model": {f"network.{name}": tensor for name, tensor in self.weights.items()},
            "preprocessing": dict(self.preprocessing),
            "__author__": "sparsedet",
        }
        return {**data, KEY: list(names)} if names else data


def from_library(name: str) -> Pretrained:
    """The weights that torchvision or timm publishes by default; they are downloaded if need be.

    Raises:
        InputError: there are none, or they cannot be fetched.
    """
    try:
        return _from_timm(name) if name.startswith(TIMM) else _from_torchvision(name)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--pretrained: the weights of {name} cannot be fetched: {reason}; give --weights FILE"
        ) from error


def _from_torchvision(name: str) -> Pretrained:
    if name in OWN or not hasattr(enum := models.get_model_weights(name), "DEFAULT"):
        raise InputError(f"--pretrained: torchvision has no weights of {name}; give --weights FILE")
    weights = enum.DEFAULT
    preset = weights.transforms()
    scaled = {
        "FORMAT": "RGB",
        "PIXEL_MEAN": [255 * value for value in preset.mean],
        "PIXEL_STD": [255 * value for value in preset.std],
    }
    state = weights.get_state_dict(progress=False, check_hash=True)
    return Pretrained(state, weights.meta.get("categories"), scaled)


def _from_timm(name: str) -> Pretrained:
    timm = require("timm", f"MODEL.CLASSIFIER.NAME {name}:")
    model = timm.create_model(name.removeprefix(TIMM), pretrained=True)
    scaled = {
        "FORMAT": "RGB",
        "PIXEL_MEAN": [255 * value for value in model.pretrained_cfg["mean"]],
        "PIXEL_STD": [255 * value for value in model.pretrained_cfg["std"]],
    }
    published = models.ResNet50_Weights.DEFAULT.meta["categories"]
    names = published if model.num_classes == len(published) else None
    return Pretrained(model.state_dict(), names, scaled)


def from_file(path: str, network: nn.Module) -> Pretrained:
    """A state_dict of the network's own names, or of a VGG that sparsedet convert wrote.

    Without a recorded preprocessing it is taken for torchvision's.

    Raises:
        InputError: it cannot be read, or nothing in it fits the network.
    """
    data = read_checkpoint(path)
    state, beside = unwrap(data)
    tensors = named_tensors(path, state)
    tensors = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    if "conv1_1.weight" in tensors:
        names = {converted: own for own, converted in vgg_names(network).items()}
        tensors = {
            f"{names[layer]}.{kind}": tensor
            for (layer, _, kind), tensor in ((key.rpartition("."), t) for key, t in tensors.items())
            if layer in names
        }
    own = network.state_dict()
    if not any(name in own and own[name].shape == t.shape for name, t in tensors.items()):
        raise InputError(
            f"{path}: nothing in it fits the network, whose first is {next(iter(own))}"
        )
    preprocessing = read_preprocessing(beside, path) or PREPROCESSING["torchvision"]
    return Pretrained(tensors, read_class_names(beside, path), preprocessing)
