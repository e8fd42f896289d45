"""The layers of a VGG-like network from an ONNX graph, by what follows what."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..extras import require
from .readers import Layer, NetworkFile, to_tensor

TORCH_EPSILON = 1e-5


def read_onnx(path: str) -> NetworkFile:
    """Walk the Conv, then the Gemm and MatMul nodes of ``path``, in the order of the graph.

    Names do not matter, so that any exporter will do. A bias may be the node's own input or an
    Add that follows; a BatchNormalization may follow that.

    Raises:
        InputError: not an ONNX file, or a convolution whose weight is not stored as a constant.
    """
    onnx = require("onnx", f"{path}: reading it")
    try:
        graph = onnx.load(path).graph
        constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    except Exception as error:  # a damaged protocol buffer can raise nearly anything
        raise InputError(f"{path}: not an ONNX file, or truncated") from error
    followers = {name: node for node in reversed(graph.node) for name in node.input}

    def attribute(node, name, default):
        values = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
        return values[0] if values else default

    def constant(name) -> torch.Tensor:
        return to_tensor(path, name, constants[name])

    def bias_after(node) -> tuple[torch.Tensor | None, str]:
        """The bias of ``node``, and the name of the tensor that it has been added to."""
        output = node.output[0]
        if len(node.input) > 2 and node.input[2] in constants:
            return constant(node.input[2]), output
        follower = followers.get(output)
        if follower is not None and follower.op_type == "Add":
            for name in follower.input:
                if name in constants:
                    return constant(name).flatten(), follower.output[0]
        return None, output

    def norm_after(output: str) -> dict[str, torch.Tensor]:
        node = followers.get(output)
        if node is None or node.op_type != "BatchNormalization":
            return {}
        names = ("weight", "bias", "running_mean", "running_var")
        norm = {name: constant(key) for name, key in zip(names, node.input[1:5])}
        norm["running_var"] += attribute(node, "epsilon", TORCH_EPSILON) - TORCH_EPSILON
        return norm

    convs, linears, channels_last = [], [], False
    for node in graph.node:
        key = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "Conv":
            if key not in constants:
                raise InputError(f"{path}: {key}, a convolution's weight, is not a stored constant")
            bias, output = bias_after(node)
            convs.append(Layer(key, constant(key), bias, norm_after(output)))
        elif node.op_type == "Transpose" and convs and not linears:
            channels_last |= list(attribute(node, "perm", [])) == [0, 2, 3, 1]
        elif node.op_type in ("Gemm", "MatMul") and key in constants and constants[key].ndim == 2:
            weight = constant(key)
            if not attribute(node, "transB", 0):  # stored as (in, out)
                weight = weight.t().contiguous()
            linears.append(Layer(key, weight, bias_after(node)[0]))
    return NetworkFile(path, "ONNX", convs, linears, channels_last)
