"""A classifier of images as a model that detectron2 builds, trains and evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from ..errors import InputError
from .networks import build_network
from .sparsified import meta_architecture

NAME = "ImageClassifier"


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """A network of torchvision or timm, called as detectron2's models are.

    Args:
        network: images (N, 3, H, W), normalised, to logits (N, K).
        pixel_mean, pixel_std: of each channel, of 0 to 255.
        input_format: the order of channels, "BGR" or "RGB".
        frozen: shell-style patterns of names of modules of this one that are not trained; their
            batch norms keep their statistics.

    Raises:
        InputError: a pattern that matches no module.
    """

    @configurable
    def __init__(
        self,
        network: nn.Module,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str,
        frozen: Sequence[str] = (),
    ):
        super().__init__()
        self.network = network
        self.input_format = input_format
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.frozen = [
            name
            for glob in frozen
            for name in _matching(glob, [name for name, _ in self.named_modules()])
        ]
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        keys = cfg.MODEL.CLASSIFIER
        return {
            "network": build_network(keys.NAME, keys.NUM_CLASSES),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "frozen": keys.FROZEN,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> ImageClassifier:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def forward(self, inputs: Sequence[Mapping[str, Any]]) -> Any:
        """Images of one size, as ``[{"image": (3, H, W), of 0 to 255}, ...]``.

        Returns:
            in training, where each also has its "label", {"loss_cls": cross entropy}; otherwise
            [{"probabilities": (K,)}, ...].
        """
        images = torch.stack([x["image"] for x in inputs]).to(self.device)
        logits = self.network(self.normalize(images))
        if self.training:
            labels = torch.tensor([x["label"] for x in inputs], device=self.device)
            return {"loss_cls": F.cross_entropy(logits, labels)}
        return [{"probabilities": row} for row in logits.float().softmax(1)]

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """What the network sees of images (N, 3, H, W) of 0 to 255."""
        return (images.float() - self.pixel_mean) / self.pixel_std

    def last_layer(self) -> str:
        """The name of the layer that gives the logits."""
        kinds = (nn.Conv2d, nn.Linear)
        return [name for name, module in self.named_modules() if isinstance(module, kinds)][-1]


def is_classifier(cfg: CfgNode) -> bool:
    """Whether a config describes an :class:`ImageClassifier`, compressed or not."""
    return meta_architecture(cfg) == NAME


def _matching(glob: str, names: Sequence[str]) -> list[str]:
    found = [name for name in names if name and fnmatchcase(name, glob)]
    if not found:
        raise InputError(f"MODEL.CLASSIFIER.FROZEN: {glob!r} matches no layer, such as {names[2]}")
    return found
