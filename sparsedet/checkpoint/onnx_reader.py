"""The layers of a VGG-like network from an ONNX graph, by what follows what."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..extras import require
from .readers import Layer, NetworkFile, to_tensor

TORCH_EPSILON = 1e-5


def read_onnx(path: str) -> NetworkFile:
    """Walk the Conv, then the Gemm and MatMul nodes of ``path``, in the order of the graph.

    Names do not matter, so that any exporter will do. A bias may be the node's own input or an
    Add that follows; a BatchNormalization may follow that. Weights may be in files beside.

    Raises:
        InputError: not an ONNX file, or a convolution whose weight is not stored as a constant.
    """
    onnx = require("onnx", f"{path}: reading it")
    try:
        graph = onnx.load(path, load_external_data=False).graph
        constants = {item.name: _values(onnx, path, item) for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                constants[node.output[0]] = _values(onnx, path, node.attribute[0].t)
        return _Graph(path, onnx, graph, constants).network()
    except InputError:
        raise
    except Exception as error:  # a damaged protocol buffer can raise nearly anything
        raise InputError(f"{path}: not an ONNX file, or truncated") from error


def _values(onnx: Any, path: str, item: Any) -> np.ndarray:
    """The numbers of a stored tensor; those in another file only from the model's own folder."""
    folder = os.path.dirname(os.path.abspath(path))
    if item.data_location == onnx.TensorProto.EXTERNAL:
        place = {entry.key: entry.value for entry in item.external_data}
        name = place.get("location", "")
        file = os.path.join(folder, name)
        if name != os.path.basename(name) or os.path.islink(file) or not os.path.isfile(file):
            raise InputError(f"{path}: weights in {name!r}: must be a file in the same folder")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(item.data_type)
        needed = math.prod(item.dims) * dtype.itemsize
        if int(place.get("length", needed)) != needed or needed > os.path.getsize(file):
            raise InputError(f"{path}: {item.name}: {name} is truncated, or of another model")
    return onnx.numpy_helper.to_array(item, base_dir=folder)


class _Graph:
    """A graph, its constants, and which node reads a tensor first."""

    def __init__(self, path: str, onnx: Any, graph: Any, constants: dict[str, np.ndarray]):
        self.path, self.onnx, self.graph, self.constants = path, onnx, graph, constants
        self.tensors: dict[str, torch.Tensor] = {}  # many nodes may share a small file's weight
        self.followers = {name: node for node in reversed(graph.node) for name in node.input}

    def network(self) -> NetworkFile:
        convs, linears, channels_last = [], [], False
        for node in self.graph.node:
            key = node.input[1] if len(node.input) > 1 else ""
            if node.op_type == "Conv":
                weight = self.constant(key)
                bias, output = self.bias_after(node)
                convs.append(Layer(key, weight, bias, self.norm_after(output)))
            elif node.op_type == "Transpose" and convs and not linears:
                channels_last |= list(self.attribute(node, "perm", [])) == [0, 2, 3, 1]
            elif node.op_type in ("Gemm", "MatMul") and np.ndim(self.constants.get(key)) == 2:
                weight = self.constant(key)
                if not self.attribute(node, "transB", 0):  # stored as (in, out)
                    weight = weight.t()
                linears.append(Layer(key, weight, self.bias_after(node)[0]))
        return NetworkFile(self.path, "ONNX", convs, linears, channels_last)

    def constant(self, name: str) -> torch.Tensor:
        if name not in self.constants:
            raise InputError(f"{self.path}: {name}, a weight, is not a stored constant")
        if name not in self.tensors:
            self.tensors[name] = to_tensor(self.path, name, self.constants[name])
        return self.tensors[name]

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        values = [self.onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
        return values[0] if values else default

    def bias_after(self, node: Any) -> tuple[torch.Tensor | None, str]:
        """The bias of ``node``, and the name of the tensor that it has been added to."""
        output = node.output[0]
        if len(node.input) > 2 and node.input[2] in self.constants:
            return self.constant(node.input[2]), output
        follower = self.followers.get(output)
        if follower is not None and follower.op_type == "Add":
            for name in follower.input:
                if name in self.constants:
                    return self.constant(name).flatten(), follower.output[0]
        return None, output

    def norm_after(self, output: str) -> dict[str, torch.Tensor]:
        node = self.followers.get(output)
        if node is None or node.op_type != "BatchNormalization":
            return {}
        names = ("weight", "bias", "running_mean", "running_var")
        norm = {name: self.constant(key) for name, key in zip(names, node.input[1:5], strict=True)}
        more = self.attribute(node, "epsilon", TORCH_EPSILON) - TORCH_EPSILON
        norm["running_var"] = norm["running_var"] + more
        return norm
