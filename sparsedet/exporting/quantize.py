"""Eight bits for the weights and activations of an ONNX graph, calibrated on images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import onnx
import torch
from torch import nn
from tqdm import tqdm

from ..detection.images import check_content
from ..errors import InputError
from ..images import read_image
from ..telemetry import require_engine
from .equalize import equalize_

quantization = require_engine("onnxruntime.quantization", "eight bits")
shape_inference = require_engine("onnxruntime.quantization.shape_inference", "eight bits")

EQUALIZED = 16  # images on which the ranges inside compact layers are made alike
PARTS = (
    *("/backbone/", "/rpn_head/", "/box_head", "/res5/", "/head/"),  # a cascade numbers box heads
    *("/mask_head/", "/keypoint_head/", "/sem_seg_head/"),
)
# Those between the layers, too: otherwise each layer would go to f32 and back. A ReLU becomes part
# of the layer before it, which then spends no bits on what is negative.
LAYERS = ["Conv", "Gemm", "MatMul"]
OPERATORS = [*LAYERS, "Add", "Concat", "MaxPool", "Relu"]
# What these give are coordinates and scores: they cost little and need every bit.
LAST_LAYERS = (
    *("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "ctrness"),
    *("predictor", "score_lowres"),
)


def detector_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of what is quantized in a detector: trunk and heads, but for the last layers."""
    return [
        node.name
        for node in graph.node
        if node.name.startswith(PARTS)
        and not any(f"/{layer}/" in node.name for layer in LAST_LAYERS)
    ]


def classifier_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of what is quantized in a classifier: all but attention and the layer of the logits."""
    constants = {weight.name for weight in graph.initializer}
    layers = [n.name for n in graph.node if n.op_type in LAYERS and n.input[1] in constants]
    between = [n.name for n in graph.node if n.op_type in OPERATORS and n.op_type not in LAYERS]
    return layers[:-1] + between


def quantize(
    path: str, inputs: Iterator[np.ndarray], choose: Callable[[onnx.GraphProto], list[str]]
) -> str:
    """Write the int8 form of the graph in ``path`` beside it; its path.

    The chosen nodes get weights of 8 bits, one scale for each output channel, and activations of 8
    bits, whose range is the mean over the images of the least and the greatest value. Weights use
    half of their range: processors without VNNI add products of two neighbours in 16 bits, where
    the whole range would saturate, and give wrong detections.

    Args:
        inputs: images as the graph reads them, of :func:`calibrate_`.
        choose: the names of what is quantized.
    """
    prepared, quantized = (f"{os.path.splitext(path)[0]}-{name}.onnx" for name in ("plain", "int8"))
    # Folds what is constant; without it biases that layers share would stay in f32.
    shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    chosen = choose(onnx.load(prepared).graph)
    quantization.quantize_static(
        prepared,
        quantized,
        _Reader(inputs),
        op_types_to_quantize=OPERATORS,
        nodes_to_quantize=chosen,
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"CalibMovingAverage": True},
    )
    model = onnx.load(quantized)
    _share_scales(model.graph, set(chosen))
    onnx.save(model, quantized)
    return quantized


def _share_scales(graph: onnx.GraphProto, chosen: Container[str]) -> None:
    """Give what a chosen Concat reads the scale of what it gives: rounded once, then copied."""
    producers = {name: node for node in graph.node for name in node.output}
    scales = {n.input[0]: list(n.input[1:]) for n in graph.node if n.op_type == "QuantizeLinear"}
    for concat in graph.node:
        scale = scales.get(concat.output[0])
        if concat.op_type != "Concat" or concat.name not in chosen or not scale:
            continue
        for name in concat.input:
            dequantize = producers[name]
            for node in (dequantize, producers[dequantize.input[0]]):
                node.input[1:] = scale


def calibrate_(
    graph: nn.Module, files: Sequence[str], prepare: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Make the ranges inside the compact layers of ``graph`` alike; its calibration images.

    Args:
        files: those that cannot be read or are too narrow are passed over.
        prepare: an image (H, W, 3) uint8, BGR, to what the graph reads.

    Returns:
        what the graph reads, of every file.

    Raises:
        InputError: no file can be used.
    """
    inputs = _inputs(files, prepare)
    first = list(islice(inputs, EQUALIZED))
    equalize_(graph, first, lambda image: graph(torch.from_numpy(image.copy())))
    return chain(first, inputs)


def _inputs(
    files: Sequence[str], prepare: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    count = 0
    for file in tqdm(files, desc="calibration", unit="image"):
        with contextlib.suppress(InputError):
            image = read_image(file)
            check_content(file, image)
            pixels = prepare(image)
            count += 1
            yield pixels
    if not count:
        raise InputError("int8 needs images to calibrate on, and none could be used")


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, inputs: Iterator[np.ndarray]):
        self.inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.inputs, None)
        return None if image is None else {"image": image}
