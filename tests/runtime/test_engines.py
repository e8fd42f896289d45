"""What an engine computes in."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsedet.errors import InputError
from sparsedet.runtime import engines
from sparsedet.runtime.detector import Detector
from sparsedet.runtime.engines import load_graph, openvino_core

ROOT = Path(__file__).parents[2]
WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def product(tmp_path):
    """A file of the graph image @ WEIGHTS, three times."""
    outputs = ("boxes", "scores", "classes")
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, IMAGE.shape)
    nodes = [helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", ["pixels", "weights"], [name]) for name in outputs]
    shape = (8, 8, 4)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
    weights = [numpy_helper.from_array(WEIGHTS, "weights")]
    graph = helper.make_graph(nodes, "product", [image], infos, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def test_openvino_computes_in_bf16_where_that_is_asked_for_and_can_be(product):
    openvino = pytest.importorskip("openvino")
    exact = IMAGE @ WEIGHTS
    plain, _, _ = load_graph(product, "openvino", 1)[0](IMAGE)
    if "BF16" not in openvino_core(openvino).get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(InputError, match="openvino: this processor does not compute in bf16$"):
            load_graph(product, "openvino", 1, "bf16")
        return
    half, _, _ = load_graph(product, "openvino", 1, "bf16")[0](IMAGE)
    scale = np.abs(exact).max()
    assert np.abs(plain - exact).max() < 1e-5 * scale
    assert 1e-4 * scale < np.abs(half - exact).max() < 2**-7 * scale


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_thread_is_busy_after_a_call(tmp_path, engine):
    """It would slow down what runs next, by a half where that has two threads of two cores."""
    pytest.importorskip(engine)
    value, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (512, 256))
        for name in ("image", "boxes")
    )
    weights = numpy_helper.from_array(np.ones((256, 256), np.float32), "weights")
    nodes = [helper.make_node("MatMul", ["image", "weights"], ["boxes"])]
    graph = helper.make_graph(nodes, "product", [value], [result], [weights])
    opset = [helper.make_opsetid("", 17)]
    path = str(tmp_path / "model.onnx")
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    run = load_graph(path, engine, 2)[0]
    for _ in range(3):
        run(np.zeros((512, 256), np.float32))
        before = time.process_time()
        time.sleep(0.1)
        assert time.process_time() - before < 0.01  # seconds; it was 0.04


def test_a_precision_that_is_not_there(product, monkeypatch):
    with pytest.raises(InputError, match="onnxruntime does not compute in 'bf16'; one of f32$"):
        Detector(product, precision="bf16")
    with pytest.raises(InputError, match="openvino does not compute in 'int8'; one of f32, bf16$"):
        Detector(product, "openvino", precision="int8")
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setattr(engines, "openvino_core", lambda openvino: core)
    with pytest.raises(InputError, match="openvino: this processor does not compute in bf16$"):
        Detector(product, "openvino", precision="bf16")


SIGNALLED = """
import os, signal, sys
from sparsedet.runtime.engines import load_graph
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (load_graph(sys.argv[1], "openvino", 1) for _ in range(2))
del first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_openvino_files_were_let_go(product):
    """As Ctrl-C is; and Python hears of the end of each process that it started by a signal."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SIGNALLED, product]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("domain", ["", "somebody.else"])
def test_an_operator_that_an_engine_lacks_is_named(tmp_path, engine, domain):
    pytest.importorskip(engine)
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1])
    node = helper.make_node("Bessel", ["image"], ["boxes"], domain=domain)
    graph = helper.make_graph([node], "graph", [value], [result])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("somebody.else", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(InputError, match=f"model.onnx: {engine} lacks the operator .*Bessel") as e:
        Detector(path, engine)
    assert "\n" not in str(e.value)
