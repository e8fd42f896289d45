"""From a detectron2 model to one ONNX file, or OpenVINO IR, that says how to use it."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from torch import nn

from .. import __version__
from ..detection.predictor import smallest_side
from ..errors import InputError
from ..extras import require
from ..files import LOCK, working_folder
from ..runtime.classifier import ClassifierInfo
from ..runtime.detector import preprocess
from ..runtime.engines import missing_operator, openvino_core
from ..runtime.labels import Labels
from ..runtime.model_info import KEY, ModelInfo
from ..runtime.seal import seal
from ..telemetry import require_engine
from .graph import DetectionGraph, panoptic_rules

PRECISIONS = ("f32", "f16", "int8")
OPSET = 17  # RoiAlign is right from 16 on
HALF_SIZE = 1024  # elements of the smallest weight that f16 stores in half precision


def export_graph(
    model: nn.Module,
    path: str,
    *,
    class_names: Sequence[str],
    min_size: int,
    max_size: int,
    precision: str = "f32",
    images: Sequence[str] = (),
    input_format: str | None = None,
    labels: Labels | None = None,
) -> None:
    """Write ``model`` to ``path``: ONNX, or OpenVINO IR where it ends in .xml (and a .bin beside).

    The graph reads one image of any size, (H, W, 3) uint8 "image" in the model's channel order,
    and gives what :class:`DetectionGraph` does: "boxes" (N, 4) in its pixels, "scores" (N,),
    "classes" (N,), best first, and so on.

    Args:
        model: of one of the kinds that :data:`~sparsedet.exporting.graph.READERS` lists.
        class_names, min_size, max_size, labels: for the metadata, see :class:`ModelInfo`.
        precision: "f32"; "f16" stores the weights in half precision and computes in f32; "int8"
            quantizes weights and activations of the trunk and the heads, but for the last layers.
        images: for "int8", files of images like those to come.
        input_format: "BGR" or "RGB"; by default what the model says of itself.

    Raises:
        InputError: a model or an operator that cannot be exported, a library that is missing,
            no image that can be read.
    """
    eight_bits = precision == "int8"
    require_libraries(path, precision)
    _check_operators(model)
    graph = DetectionGraph(copy.deepcopy(model) if eight_bits else model)
    info = ModelInfo(
        class_names=list(class_names),
        format=input_format or model.input_format,
        min_size=min_size,
        max_size=max_size,
        smallest_side=smallest_side(model),
        score_threshold=graph.score_threshold,
        precision=precision,
        version=__version__,
        outputs=graph.outputs,
        semantic_stride=graph.semantic_stride,
        panoptic=panoptic_rules(model),
        labels=labels or Labels(),
    )
    with tempfile.TemporaryDirectory() as folder:
        traced = os.path.join(folder, "model.onnx")
        if eight_bits:
            from .quantize import calibrate_, detector_nodes, quantize

            inputs = calibrate_(graph, images, partial(preprocess, info=info))
        _trace(graph, traced)
        if eight_bits:
            traced = quantize(traced, inputs, detector_nodes)
        save_graph(traced, path, info)


def require_libraries(path: str, precision: str) -> None:
    """Raises InputError where a library that writing such a file takes is missing."""
    require("onnx", f"exporting to {path}")
    if path.endswith(".xml"):
        require_engine("openvino", f"exporting to {path}")
    if precision == "int8":
        require_engine("onnxruntime", f"exporting to {path}")


@contextmanager
def replacing_files(path: str) -> Iterator[str]:
    """Yield a path of the same name in a temporary folder beside.

    When the block succeeds, every file that is there takes its place beside ``path``.

    Raises:
        InputError: a file cannot be written there, or another process is writing it.
    """
    folder, name = os.path.split(path)
    if not os.path.isdir(folder or "."):
        raise InputError(f"{path}: cannot be written: No such file or directory")
    beside = os.path.join(folder, ".export-" + name.replace(".", "-"))
    with working_folder(beside, path) as temporary:
        try:
            yield os.path.join(temporary, name)
            written = sorted(set(os.listdir(temporary)) - {LOCK})
            # A kill between two moves must not leave the old graph beside new weights.
            if len(written) > 1 and os.path.exists(path):
                os.remove(path)
            for part in written:  # .bin before .xml
                os.replace(os.path.join(temporary, part), os.path.join(folder, part))
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _check_operators(model: nn.Module) -> None:
    """Of what has no operator the tracer names another, or none."""
    for name, module in model.named_modules():
        if isinstance(module, (DeformConv, ModulatedDeformConv)):
            raise InputError(
                f"the model cannot be exported: {name} is a deformable convolution, for which ONNX "
                f"has no operator in opset {OPSET}"
            )


def _trace(graph: DetectionGraph, path: str) -> None:
    example = torch.zeros(192, 256, 3, dtype=torch.uint8)
    axes = {"image": {0: "height", 1: "width"}, "semantic": {1: "rows", 2: "columns"}}
    names = "image", *graph.outputs
    free = {name: axes.get(name, {0: "detections"}) for name in names}
    trace(graph, example, path, graph.outputs, free)


def trace(
    graph: nn.Module,
    example: torch.Tensor,
    path: str,
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]] | None = None,
) -> None:
    """Write what a module does to an image as ONNX.

    Args:
        axes: by the name of the image or of an output, the axes that are free, with their names.

    Raises:
        InputError: an operator that ONNX has not.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, on shapes that it follows all the same
            torch.onnx.export(
                graph,
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=list(outputs),
                dynamic_axes=axes,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the model cannot be exported: {reason}") from error


def save_graph(traced: str, path: str, info: ModelInfo | ClassifierInfo) -> None:
    """Write the traced graph with metadata and checksum, in the form that ``path`` asks for."""
    import onnx

    model = onnx.load(traced)
    onnx.helper.set_model_props(model, {KEY: info.to_json()})
    if path.endswith(".xml"):
        openvino = require_engine("openvino", f"exporting to {path}")
        onnx.save(model, traced)
        # convert_model simplifies the graph: int8 loads in half of the time and runs no slower. But
        # after it OpenVINO 2026.4 runs RoIAlign in bf16 on another layout, 20 times slower.
        simplify = info.precision == "int8"
        read = openvino.convert_model if simplify else openvino_core(openvino).read_model
        try:
            converted = read(traced)
        except RuntimeError as error:
            operator = missing_operator(error) or "that it does not name"
            raise InputError(
                f"the model cannot be exported: openvino lacks the operator {operator}"
            ) from error
        try:
            openvino.save_model(converted, path, compress_to_fp16=info.precision == "f16")
        except RuntimeError as error:  # it says no more than iostream error
            raise OSError("is the disk full?") from error
    else:
        if info.precision == "f16":
            _store_in_half(model)
        onnx.save(model, path)
    seal(path)


def _store_in_half(model) -> None:
    """Replace each large float32 weight of an ONNX model by its half and a cast back."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < HALF_SIZE:
            continue
        name, half = weight.name, f"{weight.name}.half"
        weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # in an order in which they can run
    del model.graph.node[:]
    model.graph.node.extend(nodes)
