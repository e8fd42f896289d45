"""Class activation maps (Zhou et al., arXiv 1512.04150), and the box of one.

With global average pooling before one fully connected layer the logit of a class is the mean, over
the last feature map, of that layer's weights times the features. The map is what the mean is of.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..hooks import attached
from ..modeling import ImageClassifier

THRESHOLD = 0.2
"""A box holds what is above this share of the map's range, as Zhou et al. choose it."""


class ActivationMaps:
    """From an image to the probabilities of its classes and a map for each.

    Args:
        model: in eval mode.

    Raises (when called):
        InputError: the network does not end in global average pooling and a linear layer.
    """

    def __init__(self, model: ImageClassifier):
        self.model = model
        self.last = model.get_submodule(model.last_layer())
        self._maps: list[torch.Tensor] = []
        self._pooled: list[torch.Tensor] = []

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(3, H, W) of 0 to 255, to probabilities (K,) and maps (K, h, w)."""
        if not isinstance(self.last, nn.Linear):
            raise InputError(self._other())
        self._maps.clear()
        self._pooled.clear()
        with attached(self._hooks()):
            (found,) = self.model([{"image": image}])
        (pooled,) = self._pooled
        for features in self._maps:
            if torch.allclose(features.mean((2, 3)), pooled, rtol=1e-3, atol=1e-5):
                maps = torch.einsum("kc,chw->khw", self.last.weight, features[0])
                return found["probabilities"].cpu().numpy(), maps.cpu().numpy()
        raise InputError(self._other())

    def _hooks(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Keep what the last layer reads, and all feature maps of as many channels."""

        def keep(module, args, output):
            if isinstance(output, torch.Tensor) and output.dim() == 4:
                if output.shape[1] == self.last.in_features and output[0, 0].numel() > 1:
                    self._maps.append(output)

        yield self.last.register_forward_pre_hook(lambda _, args: self._pooled.append(args[0]))
        for module in self.model.network.modules():
            yield module.register_forward_hook(keep)

    def _other(self) -> str:
        return (
            f"{type(self.model.network).__name__}: does not end in global average pooling and one "
            "linear layer, so it has no class activation maps; vgg16_gap, googlenet and resnet50 do"
        )


def heat(activation: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map (h, w) resized to an image, 0 where it is least and 1 where it is greatest."""
    resized = cv2.resize(activation.astype(np.float32), (width, height))
    least, greatest = resized.min(), resized.max()
    return (resized - least) / (greatest - least) if greatest > least else np.ones_like(resized)


def box_of(hot: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """The box (4,), XYXY_ABS, of the largest connected part of ``hot`` (H, W) above a threshold."""
    mask = (hot > threshold).astype(np.uint8)
    _, _, parts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    x, y, width, height, _ = parts[1:][parts[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([x, y, x + width, y + height], np.float32)
