"""Loading an exported file in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError
from ..telemetry import require_engine
from .model_info import KEY
from .seal import check_seal

# Pixels (H, W, 3) uint8 to the graph's outputs, in their order. Any number of threads may call it.
Graph = Callable[[np.ndarray], "tuple[np.ndarray, ...]"]


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
    check_seal(path)  # before an engine, which may die of it, sees what is damaged
    try:
        return ENGINES[engine](path, threads, precision)
    except InputError:
        raise
    except Exception as error:  # each engine has errors of its own
        if operator := missing_operator(error):
            raise InputError(f"{path}: {engine} lacks the operator {operator}") from error
        raise InputError(f"{path}: not a model that {engine} can load, or truncated") from error


def missing_operator(error: Exception) -> str:
    """The operators that an engine says it does not know; "" where it complains of something else.

    ONNX Runtime 1.17 to 1.30, OpenVINO 2024 to 2026.
    """
    found = re.search(
        r"No Op registered for (\w+)|error: ([\w.]*:\w+)\(-?\d+\) is not a registered"
        r"|implementation for (\w+)|for operations: ([\w.,: -]+)",
        str(error),
    )
    return next(filter(None, found.groups())).strip() if found else ""


def _onnxruntime(path: str, threads: int | None, precision: str) -> tuple[Graph, str]:
    onnxruntime = require_engine("onnxruntime", f"{path}: running it")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads:
        options.intra_op_num_threads = threads
    # Threads would wait busily for another call, and keep what runs next from a core for 40 ms.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map.get(KEY, "")
    return lambda image: tuple(session.run(None, {"image": image})), metadata


_core: Any = None
_one_at_a_time = Lock()


def openvino_core(openvino: ModuleType) -> Any:
    """The ``openvino.Core`` of this process: the only one, which is never released.

    In the thread in which it loads its CPU device, a Core replaces the stack of signal handlers,
    and puts back the one before when it is released. Of two that are released in the order in
    which they were made, the second puts back a stack that is gone with the first; the next signal
    that Python handles, of Ctrl-C or of a process that ends, then ends this process (SIGSEGV).
    Seen in OpenVINO 2026.4.1, in its class SigAltStackSetup.
    """
    global _core
    with _one_at_a_time:
        _core = _core or openvino.Core()
    return _core


def _openvino(path: str, threads: int | None, precision: str) -> tuple[Graph, str]:
    core = openvino_core(require_engine("openvino", f"{path}: running it"))
    # Without bf16 it would compute in f32, and not say so.
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("openvino: this processor does not compute in bf16")
    model = core.read_model(path)
    # By itself OpenVINO would choose bf16 where the processor has it.
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", options)
    idle = [compiled.create_infer_request()]  # one that runs refuses other calls

    def run(image: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            results = request.infer([image])
            return tuple(results[i].copy() for i in range(len(results)))  # buffers are used again
        finally:
            idle.append(request)

    place = ["framework", KEY]  # where OpenVINO puts the metadata of an ONNX file
    return run, model.get_rt_info(place).astype(str) if model.has_rt_info(place) else ""


ENGINES = {"onnxruntime": _onnxruntime, "openvino": _openvino}
PRECISIONS = {"onnxruntime": ("f32",), "openvino": ("f32", "bf16")}
