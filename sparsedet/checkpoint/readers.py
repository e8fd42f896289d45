"""The layers of a VGG-like network, in order, from a checkpoint, a Keras or an ONNX file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import InputError
from ..extras import require
from .state_dicts import is_checkpoint, named_tensors, read_checkpoint, unwrap

UNFOLDED = 16  # compressed weights are at most so many times larger than their file


@dataclass
class Layer:
    """A convolution (out, in, height, width) or a linear layer (out, in), with its bias (out).

    ``norm`` holds the batch norm that follows, if any: weight, bias, running_mean and running_var
    of a ``BatchNorm2d`` with PyTorch's epsilon of 1e-5. ``key`` names the layer in its file.
    """

    key: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    norm: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class NetworkFile:
    """What a file holds. ``channels_last``: features are flattened as (H, W, C), as Keras does."""

    path: str
    format: str
    convs: list[Layer]
    linears: list[Layer]
    channels_last: bool


def read_network(path: str) -> NetworkFile:
    """Read the convolutions and linear layers of a .pth, .pkl, .safetensors, .h5 or .onnx file.

    The format is told from the content, not the name.

    Raises:
        InputError: no such file, another format, a truncated file, or a library that is missing.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if is_checkpoint(magic):
        return _read_state_dict(path)
    if magic[:8] == b"\x89HDF\r\n\x1a\n":
        return _read_keras(path)
    if path.lower().endswith(".onnx"):  # protocol buffers have no magic number
        from .onnx_reader import read_onnx

        return read_onnx(path)
    raise InputError(
        f"{path}: neither a PyTorch .pth, a .pkl, a .safetensors, a Keras .h5 nor an .onnx file"
    )


def to_tensor(path: str, key: str, array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A float32 copy in the machine's byte order."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        array = torch.from_numpy(array.astype(np.float32))
    if not isinstance(array, torch.Tensor) or not array.is_floating_point():
        raise InputError(f"{path}: {key} is {array.dtype}; weights must be floating point")
    return array.to(torch.float32)


def _read_state_dict(path: str) -> NetworkFile:
    state, _ = unwrap(read_checkpoint(path))
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in named_tensors(path, state).items():
        if not key.endswith("num_batches_tracked"):
            module, _, name = key.rpartition(".")
            modules.setdefault(module, {})[name] = to_tensor(path, key, value)
    convs, linears, norms = [], [], []
    for module in sorted(modules, key=_natural_order):
        tensors = modules[module]
        if "running_mean" in tensors:
            norms.append((module, tensors))
        elif "weight" in tensors and tensors["weight"].ndim in (2, 4):
            layers = convs if tensors["weight"].ndim == 4 else linears
            layers.append(Layer(f"{module}.weight", tensors["weight"], tensors.get("bias")))
    if norms and len(norms) != len(convs):
        raise InputError(f"{path}: {len(norms)} batch norms for {len(convs)} convolutions")
    for conv, (module, tensors) in zip(convs, norms):
        absent = {"weight", "bias", "running_mean", "running_var"} - set(tensors)
        if absent:
            raise InputError(f"{path}: {module}.{sorted(absent)[0]} is missing")
        conv.norm = tensors
    return NetworkFile(path, "PyTorch", convs, linears, channels_last=False)


def _read_keras(path: str) -> NetworkFile:
    h5py = require("h5py", f"{path}: reading it")
    groups: dict[str, list] = {}
    left = UNFOLDED * os.path.getsize(path)

    def collect(key, item):
        nonlocal left
        if not isinstance(item, h5py.Dataset) or key.startswith("optimizer"):
            return
        if item.external or item.is_virtual:
            raise InputError(f"{path}: {key} is in another file; save the weights in one")
        if item.dtype.kind in "fiub":  # the others are texts
            left -= item.nbytes
            if left < 0:
                raise InputError(f"{path}: {key} of shape {item.shape} is larger than the file")
            groups.setdefault(key.rpartition("/")[0], []).append((key, item[()]))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except InputError:
        raise
    except Exception as error:  # HDF5 raises nearly anything
        raise InputError(f"{path}: not an HDF5 file, or truncated") from error

    convs, linears, norms = [], [], 0
    for group in sorted(groups, key=_natural_order):
        arrays = {np.ndim(array): (key, array) for key, array in groups[group]}
        norms += len(groups[group]) == 4 and set(arrays) == {1}
        ndim = max(arrays)
        if ndim not in (2, 4):
            continue
        key, kernel = arrays[ndim]
        kernel = to_tensor(path, key, kernel)
        bias = to_tensor(path, *arrays[1]) if 1 in arrays else None
        if ndim == 4:  # height, width, in, out
            convs.append(Layer(key, kernel.permute(3, 2, 0, 1).contiguous(), bias))
        else:  # in, out
            linears.append(Layer(key, kernel.t().contiguous(), bias))
    if norms and norms >= len(convs):  # fewer belong to a classifier of the user's own
        raise InputError(f"{path}: a Keras VGG with batch norm is not supported; export it to ONNX")
    return NetworkFile(path, "Keras", convs, linears, channels_last=True)


def _natural_order(name: str) -> list:
    """So that features.2 comes before features.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
