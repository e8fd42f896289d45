"""Loading an exported file in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..telemetry import require_engine
from .model_info import KEY

# Pixels (H, W, 3) uint8 to the graph's outputs: boxes, scores and classes.
Graph = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray, np.ndarray]"]


def load_graph(
    path: str, engine: str, threads: int | None, precision: str = "f32"
) -> tuple[Graph, str]:
    """The graph in a file, ready to run on the CPU, and its metadata, "" for none.

    Args:
        precision: what the engine computes in, where the file is not int8: "f32" or "bf16".

    Raises:
        InputError: an unknown engine, one that is not installed, a file that it cannot load, a
            precision that the engine or this processor lacks.
    """
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r}; one of {', '.join(ENGINES)}")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such model file")
    if precision not in PRECISIONS[engine]:
        known = ", ".join(PRECISIONS[engine])
        raise InputError(f"{engine} does not compute in {precision!r}; one of {known}")
    try:
        return ENGINES[engine](path, threads, precision)
    except InputError:
        raise
    except Exception as error:  # each engine has errors of its own
        raise InputError(f"{path}: not a model that {engine} can load, or truncated") from error


def _onnxruntime(path: str, threads: int | None, precision: str) -> tuple[Graph, str]:
    onnxruntime = require_engine("onnxruntime", f"{path}: running it")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map.get(KEY, "")
    return lambda image: tuple(session.run(None, {"image": image})), metadata


def _openvino(path: str, threads: int | None, precision: str) -> tuple[Graph, str]:
    openvino = require_engine("openvino", f"{path}: running it")
    core = openvino.Core()
    # Without bf16 it would compute in f32, and not say so.
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("openvino: this processor does not compute in bf16")
    model = core.read_model(path)
    # By itself OpenVINO would choose bf16 where the processor has it.
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(image: np.ndarray) -> tuple[np.ndarray, ...]:
        results = request.infer([image])
        return tuple(results[i].copy() for i in range(len(results)))  # they are used again

    place = ["framework", KEY]  # where OpenVINO puts the metadata of an ONNX file
    return run, model.get_rt_info(place).astype(str) if model.has_rt_info(place) else ""


ENGINES = {"onnxruntime": _onnxruntime, "openvino": _openvino}
PRECISIONS = {"onnxruntime": ("f32",), "openvino": ("f32", "bf16")}
