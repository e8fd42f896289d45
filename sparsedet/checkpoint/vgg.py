"""From the layers of somebody's VGG to a checkpoint that detectron2 loads by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import InputError
from ..modeling.vgg import CHANNELS, CONVS_PER_STAGE
from .preprocessing import PREPROCESSING, infer_preprocessing
from .readers import Layer, NetworkFile, read_network

FC_SHAPES = {"fc6": (4096, 512 * 7 * 7), "fc7": (4096, 4096)}


@dataclass
class ImportedVGG:
    """VGG weights under sparsedet's names (conv1_1.weight ... fc7.bias) and what they need.

    ``skipped`` describes the linear layers of the file that are neither fc6 nor fc7.
    """

    format: str
    depth: int
    norm: bool
    preprocessing: str
    model: dict[str, torch.Tensor]
    skipped: list[str]

    def checkpoint(self) -> dict:
        """What ``torch.save`` should write: weights together with their preprocessing."""
        return {
            "model": self.model,
            "matching_heuristics": True,
            "preprocessing": PREPROCESSING[self.preprocessing],
            "__author__": "sparsedet",
        }


def vgg_conv_shapes(depth: int) -> dict[str, tuple[int, int, int, int]]:
    """Name and weight shape (out, in, 3, 3) of every convolution, in order."""
    shapes, channels = {}, 3
    for stage, (count, width) in enumerate(zip(CONVS_PER_STAGE[depth], CHANNELS), start=1):
        for i in range(1, count + 1):
            shapes[f"conv{stage}_{i}"] = (width, channels, 3, 3)
            channels = width
    return shapes


def import_vgg(path: str, preprocessing: str | None = None) -> ImportedVGG:
    """Read a VGG of any supported format, check every shape, and rename its weights.

    Args:
        path: a .pth, .h5 or .onnx file.
        preprocessing: a key of ``PREPROCESSING``; None to infer it.

    Raises:
        InputError: the file is not a VGG, or does not tell its preprocessing.
    """
    network = read_network(path)
    depths = {sum(counts): depth for depth, counts in CONVS_PER_STAGE.items()}
    depth = depths.get(len(network.convs))
    if depth is None:
        known = ", ".join(f"VGG-{depth} has {count}" for count, depth in depths.items())
        raise InputError(f"{path}: {len(network.convs)} convolutions found, but {known}")

    norm = bool(network.convs[0].norm)
    model = {}
    for (name, shape), conv in zip(vgg_conv_shapes(depth).items(), network.convs):
        _check_layer(path, conv, name, shape)
        if bool(conv.norm) != norm:
            raise InputError(f"{path}: some convolutions have a batch norm, {conv.key} differs")
        model.update(_conv_tensors(name, conv))
    linears, skipped = _pick_linears(network)
    for name, linear in linears.items():
        model[f"{name}.weight"], model[f"{name}.bias"] = linear.weight.contiguous(), linear.bias
    return ImportedVGG(
        format=network.format,
        depth=depth,
        norm=norm,
        preprocessing=preprocessing or infer_preprocessing(network),
        model=model,
        skipped=skipped,
    )


def _check_layer(path: str, layer: Layer, name: str, shape: tuple[int, ...]) -> None:
    """Raise InputError unless the convolution fits ``shape`` (out, in, height, width)."""
    if tuple(layer.weight.shape) != shape:
        raise InputError(
            f"{path}: {layer.key}, taken for {name}: expected shape {shape} (out, in, height, "
            f"width), found {tuple(layer.weight.shape)}"
        )
    if layer.bias is None and not layer.norm:
        raise InputError(f"{path}: {layer.key}, taken for {name}: its bias is missing")
    vectors = {"bias": layer.bias, **{f"norm.{key}": v for key, v in layer.norm.items()}}
    for key, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != shape[:1]:
            raise InputError(
                f"{path}: {key} of {layer.key}, taken for {name}: expected shape {shape[:1]}, "
                f"found {tuple(vector.shape)}"
            )
    if not all(t.isfinite().all() for t in (layer.weight, *vectors.values()) if t is not None):
        raise InputError(f"{path}: {layer.key}, taken for {name}: has values that are not finite")


def _conv_tensors(name: str, conv: Layer) -> dict[str, torch.Tensor]:
    tensors = {f"{name}.weight": conv.weight}
    if not conv.norm:
        return {**tensors, f"{name}.bias": conv.bias}
    tensors.update({f"{name}.norm.{key}": value for key, value in conv.norm.items()})
    if conv.bias is not None:  # norm(x + bias) is norm(x) with the mean moved
        tensors[f"{name}.norm.running_mean"] = conv.norm["running_mean"] - conv.bias
    return tensors


def _pick_linears(network: NetworkFile) -> tuple[dict[str, Layer], list[str]]:
    """fc6, then fc7, where the file has layers of their shapes; and a description of the others."""
    picked, skipped = {}, []
    for layer in network.linears:
        name = ("fc6", "fc7", "")[len(picked)]
        shape = tuple(layer.weight.shape)
        bias_fits = layer.bias is not None and tuple(layer.bias.shape) == shape[:1]
        if shape != FC_SHAPES.get(name) or not bias_fits:
            skipped.append(f"{layer.key} {shape}")
        elif not (layer.weight.isfinite().all() and layer.bias.isfinite().all()):
            skipped.append(f"{layer.key} {shape}, whose values are not finite")
        else:
            picked[name] = layer
    if "fc6" in picked and network.channels_last:
        weight = picked["fc6"].weight.unflatten(1, (7, 7, 512))
        picked["fc6"].weight = weight.permute(0, 3, 1, 2).flatten(1)
    return picked, skipped
