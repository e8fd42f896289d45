"""A classifier's network as the backbone of a detector: names, plan and config keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torchvision.models import ResNet

from ..compress.candidates import dense_layers
from ..errors import InputError
from ..layers import LowRankLinear, SparseFusionConv2d
from ..modeling import ImageClassifier, sparsified_config
from ..modeling.vgg import CHANNELS, CONVS_PER_STAGE

CONVS = (nn.Conv2d, SparseFusionConv2d)
LINEARS = (nn.Linear, LowRankLinear)
POOLED = 7  # of VGG's features, where its fully connected layers begin
# Numbers of blocks to detectron2's MODEL.RESNETS.DEPTH; the first with two convolutions a block.
SHALLOW = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
DEEP = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclass(frozen=True)
class ClassifierBackbone:
    """Weights under detectron2's names, without what stands before them in a detector.

    Attributes:
        plan: what each compact layer is, by the same names; empty for a dense network.
        keys: of the config, without MODEL, that describe the dense network.
        preprocessing: in the form of ``PREPROCESSING``.
    """

    weights: dict[str, torch.Tensor]
    plan: dict[str, Mapping[str, Any]]
    keys: dict[str, Any]
    preprocessing: dict[str, Any]

    def checkpoint(self) -> dict:
        """What ``torch.save`` should write; a detector of any backbone takes it by the ends."""
        return {
            "model": self.weights,
            "matching_heuristics": True,
            "preprocessing": self.preprocessing,
            "__author__": "sparsedet",
        }

    def detector_config(self, cfg: CfgNode, weights: str) -> CfgNode:
        """``cfg``, of a dense detector, with this backbone.

        Layers that the detector has not (the last stage, where it is of another make) are left out.

        Args:
            weights: where :meth:`checkpoint` is.

        Raises:
            InputError: ``cfg`` plans compact layers, or its detector has none of the layers.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.FORMAT = self.preprocessing["FORMAT"]
        cfg.MODEL.PIXEL_MEAN = self.preprocessing["PIXEL_MEAN"]
        cfg.MODEL.PIXEL_STD = self.preprocessing["PIXEL_STD"]
        for key, value in self.keys.items():
            cfg.merge_from_list([f"MODEL.{key}", value])
        cfg.MODEL.WEIGHTS = weights
        names = list(dense_layers(build_model(cfg)))
        layers = {name.rpartition(".")[0] for name in self.weights if name.endswith(".weight")}
        if not any(_is(name, layer) for name in names for layer in layers):
            raise InputError(f"the detector has no {min(layers)}, nor any other layer of it")
        entries = {
            name: entry for layer, entry in self.plan.items() for name in names if _is(name, layer)
        }
        return sparsified_config(cfg, entries) if entries else cfg


def _is(name: str, layer: str) -> bool:
    return f".{name}".endswith(f".{layer}")


def classifier_backbone(model: ImageClassifier, plan: Mapping[str, Any]) -> ClassifierBackbone:
    """What a detector takes of a classifier.

    Args:
        plan: of the classifier, by its own names; empty for a dense one.

    Raises:
        InputError: neither a VGG nor a ResNet of torchvision.
    """
    network = model.network
    if isinstance(network, ResNet):
        names, keys = resnet_names(network), _resnet_keys(network)
    elif isinstance(getattr(network, "features", None), nn.Sequential):
        names = vgg_names(network)
        keys = _vgg_keys(network, names)
        names.update(_fc_names(network))
    else:
        raise InputError(
            f"{type(network).__name__}: only a VGG and a ResNet of torchvision become backbones"
        )
    state = network.state_dict()
    weights = {
        f"{new}.{key.removeprefix(own + '.')}": tensor
        for own, new in names.items()
        for key, tensor in state.items()
        if key.startswith(f"{own}.") and not key.endswith("num_batches_tracked")
    }
    entries = {names[layer]: entry for layer, entry in _own(plan).items() if layer in names}
    preprocessing = {
        "FORMAT": model.input_format,
        "PIXEL_MEAN": model.pixel_mean.flatten().tolist(),
        "PIXEL_STD": model.pixel_std.flatten().tolist(),
    }
    return ClassifierBackbone(_without_bias(weights), entries, keys, preprocessing)


def _own(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("network."): entry for name, entry in plan.items()}


def vgg_names(network: nn.Module) -> dict[str, str]:
    """Names of a VGG's convolutions and norms, as in torchvision, to conv1_1 and conv1_1.norm."""
    names, stage, count, last = {}, 1, 0, ""
    for index, layer in network.features.named_children():
        if isinstance(layer, CONVS):
            count += 1
            last = names[f"features.{index}"] = f"conv{stage}_{count}"
        elif isinstance(layer, nn.BatchNorm2d):
            names[f"features.{index}"] = f"{last}.norm"
        elif isinstance(layer, nn.MaxPool2d):
            stage, count = stage + 1, 0
    return names


def _fc_names(network: nn.Module) -> dict[str, str]:
    """Of the layers that a box head begins with, where they read VGG's 7x7 features."""
    classifier = getattr(network, "classifier", None)
    linears = [
        (f"classifier.{name}", layer)
        for name, layer in (classifier.named_children() if classifier is not None else ())
        if isinstance(layer, LINEARS)
    ]
    if len(linears) != 3 or linears[0][1].in_features % POOLED**2:
        return {}
    return {linears[0][0]: "fc6", linears[1][0]: "fc7"}


def _vgg_keys(network: nn.Module, names: Mapping[str, str]) -> dict[str, Any]:
    convs = [own for own, new in names.items() if re.fullmatch(r"conv\d_\d", new)]
    depths = {sum(counts): depth for depth, counts in CONVS_PER_STAGE.items()}
    if len(convs) not in depths:
        raise InputError(f"{type(network).__name__}: {len(convs)} convolutions, which no VGG has")
    depth = depths[len(convs)]
    usual = [w for w, count in zip(CHANNELS, CONVS_PER_STAGE[depth]) for _ in range(count)]
    widths = [network.get_submodule(own).out_channels for own in convs]
    return {
        "VGG.DEPTH": depth,
        "VGG.CHANNELS": [] if widths == usual else widths,
        "VGG.NORM": "FrozenBN" if len(names) > len(convs) else "",
    }


def resnet_names(network: ResNet) -> dict[str, str]:
    """Names of a ResNet's convolutions and norms, as in torchvision, to those of detectron2."""
    names = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
    for own, module in network.named_modules():
        match = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+?)(?:\.?(\d))?", own)
        if match and isinstance(module, (*CONVS, nn.BatchNorm2d)):
            stage, block, kind, number = match.groups()
            place = "shortcut" if kind == "downsample" else f"conv{number}"
            norm = ".norm" if isinstance(module, nn.BatchNorm2d) else ""
            names[own] = f"res{int(stage) + 1}.{block}.{place}{norm}"
    return names


def _resnet_keys(network: ResNet) -> dict[str, Any]:
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    first = network.layer1[0]
    depths = DEEP if hasattr(first, "conv3") else SHALLOW
    blocks = tuple(map(len, stages))
    if blocks not in depths:
        raise InputError(f"ResNet: blocks {blocks}, which are those of no depth in detectron2")
    return {
        "RESNETS.DEPTH": depths[blocks],
        "RESNETS.STRIDE_IN_1X1": False,
        "RESNETS.NUM_GROUPS": network.groups,
        "RESNETS.WIDTH_PER_GROUP": network.base_width,
        "RESNETS.RES2_OUT_CHANNELS": 64 * first.expansion,
    }


def _without_bias(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A bias before a norm moved into the norm's mean: detectron2's layers have none there."""
    for mean in [key for key in weights if key.endswith(".norm.running_mean")]:
        layer = mean.removesuffix(".norm.running_mean")
        for bias in (f"{layer}.bias", f"{layer}.fusion.bias"):
            if bias in weights:
                weights[mean] = weights[mean] - weights.pop(bias)
    return weights
