"""Eight bits for the weights and activations of an ONNX graph, calibrated on images."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from ..errors import InputError
from .inputs import read_image
from .model_info import ModelInfo
from .runtime import preprocess

PARTS = ("/backbone/", "/rpn_head/", "/box_head/")
# Those between the layers, too: otherwise each layer would go to f32 and back.
OPERATORS = ["Add", "Concat", "Conv", "Gemm", "MatMul", "MaxPool"]
# What these give are coordinates and scores: they cost little and need every bit.
LAST_LAYERS = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred")


def quantize(path: str, info: ModelInfo, images: Sequence[str]) -> str:
    """Write the int8 form of the graph in ``path`` beside it; its path.

    The trunk and the heads, but for the last layers, get weights of 8 bits, one scale for each
    output channel, and activations of 8 bits, whose range is the mean over the images of the least
    and the greatest value.

    Raises:
        InputError: none of ``images`` can be read.
    """
    inputs = _inputs(images, info)
    first = next(inputs, None)
    if first is None:
        raise InputError("int8 needs images to calibrate on, and none could be read")
    prepared, quantized = (f"{os.path.splitext(path)[0]}-{name}.onnx" for name in ("plain", "int8"))
    # Folds what is constant; without it biases that layers share would stay in f32.
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        quantized,
        _Reader(itertools.chain([first], inputs)),
        op_types_to_quantize=OPERATORS,
        nodes_to_quantize=[
            node.name
            for node in onnx.load(prepared).graph.node
            if node.name.startswith(PARTS)
            and not any(f"/{layer}/" in node.name for layer in LAST_LAYERS)
        ],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"CalibMovingAverage": True},
    )
    return quantized


def _inputs(files: Sequence[str], info: ModelInfo) -> Iterator[dict]:
    """What the graph reads, of every file that can be read and is wide enough."""
    for file in tqdm(files, desc="calibration", unit="image"):
        with contextlib.suppress(InputError):
            yield {"image": preprocess(read_image(file), info)}


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: Iterator[dict]):
        self.inputs = inputs

    def get_next(self) -> dict | None:
        return next(self.inputs, None)
