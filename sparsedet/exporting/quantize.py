"""Eight bits for the weights and activations of an ONNX graph, calibrated on images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from tqdm import tqdm

from ..detection.images import check_content
from ..errors import InputError
from ..images import read_image
from ..runtime.detector import preprocess
from ..runtime.model_info import ModelInfo
from ..telemetry import require_engine

quantization = require_engine("onnxruntime.quantization", "eight bits")
shape_inference = require_engine("onnxruntime.quantization.shape_inference", "eight bits")

PARTS = (
    *("/backbone/", "/rpn_head/", "/box_head", "/res5/", "/head/"),  # a cascade numbers box heads
    *("/mask_head/", "/keypoint_head/", "/sem_seg_head/"),
)
# Those between the layers, too: otherwise each layer would go to f32 and back. A ReLU becomes part
# of the layer before it, which then spends no bits on what is negative.
OPERATORS = ["Add", "Concat", "Conv", "Gemm", "MatMul", "MaxPool", "Relu"]
# What these give are coordinates and scores: they cost little and need every bit.
LAST_LAYERS = (
    *("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "ctrness"),
    *("predictor", "score_lowres"),
)


def quantize(path: str, inputs: Iterator[np.ndarray]) -> str:
    """Write the int8 form of the graph in ``path`` beside it; its path.

    The trunk and the heads, but for the last layers, get weights of 8 bits, one scale for each
    output channel, and activations of 8 bits, whose range is the mean over the images of the least
    and the greatest value. Weights use half of their range: processors without VNNI add products of
    two neighbours in 16 bits, where the whole range would saturate, and give wrong detections.

    Args:
        inputs: images as the graph reads them, from :func:`calibration_inputs`.
    """
    prepared, quantized = (f"{os.path.splitext(path)[0]}-{name}.onnx" for name in ("plain", "int8"))
    # Folds what is constant; without it biases that layers share would stay in f32.
    shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        quantized,
        _Reader(inputs),
        op_types_to_quantize=OPERATORS,
        nodes_to_quantize=[
            node.name
            for node in onnx.load(prepared).graph.node
            if node.name.startswith(PARTS)
            and not any(f"/{layer}/" in node.name for layer in LAST_LAYERS)
        ],
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"CalibMovingAverage": True},
    )
    model = onnx.load(quantized)
    _share_scales(model.graph)
    onnx.save(model, quantized)
    return quantized


def _share_scales(graph: onnx.GraphProto) -> None:
    """Give what a Concat reads the scale of what it gives: to be rounded once, and then copied."""
    producers = {name: node for node in graph.node for name in node.output}
    scales = {n.input[0]: list(n.input[1:]) for n in graph.node if n.op_type == "QuantizeLinear"}
    for concat in graph.node:
        scale = scales.get(concat.output[0])
        if concat.op_type != "Concat" or not concat.name.startswith(PARTS) or not scale:
            continue
        for name in concat.input:
            dequantize = producers[name]
            for node in (dequantize, producers[dequantize.input[0]]):
                node.input[1:] = scale


def calibration_inputs(files: Sequence[str], info: ModelInfo) -> Iterator[np.ndarray]:
    """What the graph reads, of every file that can be read and is wide enough.

    Raises:
        InputError: there is none.
    """
    count = 0
    for file in tqdm(files, desc="calibration", unit="image"):
        with contextlib.suppress(InputError):
            image = read_image(file)
            check_content(file, image)
            pixels = preprocess(image, info)
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
