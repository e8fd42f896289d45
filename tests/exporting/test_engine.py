"""Layers and models that are timed in the engine in which they will run."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sparsedet.api import compress_
from sparsedet.compress import LayerPlan, LayerProfile, Option, Profile, Task, layer_times
from sparsedet.compress.engine import PYTORCH
from sparsedet.compress.layer_times import measure_latency
from sparsedet.compress.surgery import compact_twin
from sparsedet.detection.load import load_model
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.exporting.engine import engine_of
from sparsedet.runtime.engines import PRECISIONS

ENGINES = ["onnxruntime", "openvino"]
PLAN = {"backbone.conv3_1": {"pattern": "rows", "ranks": [8, 8]}}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times, "ROUNDS", 1)


@pytest.fixture(scope="module")
def detector(kitchen):
    return load_model(kitchen / "config.yaml", kitchen / "model.pth")


def image(height=64, width=96):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "height": height, "width": width}


@pytest.mark.parametrize("name", ENGINES)
@torch.no_grad()
def test_a_layer_runs_there_as_in_pytorch_at_every_size(detector, name):
    engine = engine_of(name, detector)
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 16, 3, padding=1)
    sparse = compact_twin(conv, LayerPlan((4, 4), "checkerboard"), project=True)
    for layer in (conv, sparse):
        run, inputs = engine.layer(layer, [torch.randn(1, 6, n, 99) for n in (80, 5)])
        frame, framed = engine.frame(layer, [torch.randn(1, 6, n, 99) for n in (80, 5)])
        assert (
            [x.shape for x in inputs]
            == [x.shape for x in framed]
            == [(1, 1, 80, 99), (1, 1, 5, 99)]
        )
        for x in inputs:  # one channel, spread over all that the layer reads
            read = torch.from_numpy(x).expand(-1, 6, -1, -1)
            for graph, expected in ((run, layer(read)), (frame, read)):
                np.testing.assert_allclose(graph(x)[0], expected[..., ::64, ::64], atol=1e-5)
    run, inputs = engine.layer(nn.Linear(6, 4), [torch.randn(0, 6), torch.randn(3, 6)])
    assert [run(x)[0].shape for x in inputs] == [(3, 4)]
    maps, linear = torch.randn(1, 5, 7, 6), nn.Linear(6, 4)  # channels last, as transformers'
    for layer in (linear, compact_twin(linear, LayerPlan((2,)), project=True)):
        run, [x] = engine.layer(layer, [maps])
        np.testing.assert_allclose(run(x)[0], layer(maps), atol=1e-5)
        assert engine.frame(layer, [maps]) is None
    run, inputs = engine.layer(conv, [torch.randn(0, 6, 5, 5)])
    assert inputs == []


@pytest.fixture
def clock(monkeypatch):
    """What runs first takes the first of these milliseconds, what runs next the second, ..."""
    times, order = [], []

    def milliseconds(function, inputs):
        assert not isinstance(function, nn.Module)  # PyTorch would run the module itself
        for x in inputs:
            function(x)
        if function not in order:
            order.append(function)
        return times[order.index(function)]

    monkeypatch.setattr(layer_times, "milliseconds", milliseconds)
    return times


@pytest.mark.parametrize("name", ENGINES)
def test_a_plan_is_timed_there_and_the_whole_foretold(detector, name, clock):
    dense, compact, tiny, frame, tiny_model = clock[:] = [9.0, 5.0, 3.0, 2.0, 20.0]
    model = copy.deepcopy(detector)
    result = compress_(model, batches=[[image()], [image()]], plan=PLAN, engine=name)
    times = result.layers["backbone.conv3_1"].milliseconds
    assert times == (dense - frame, compact - frame) and result.engine == f"{name} f32"
    assert result.predicted_milliseconds == tiny_model - (tiny - frame) + (compact - frame)
    assert f"in {name} f32; 22 was predicted" in str(result)
    assert all(not m.training for m in model.modules())


@pytest.mark.parametrize("name", ENGINES)
def test_what_options_cost_there_and_the_rest(detector, name, clock):
    dense, tiny, sparse, frame, tiny_model = clock[:] = [9.0, 3.0, 5.0, 2.0, 20.0]
    layer = "backbone.conv3_1"
    options = [Option(None, 9216, 0.0), Option(LayerPlan((8, 8), "rows"), 2816, 0.1)]
    profile = Profile({layer: LayerProfile(1.0, options)}, 1, 1.0)
    task = DetectionTask([[image()]], detector.cfg)
    cost = measure_latency(detector, profile, task, engine=engine_of(name, detector))
    assert [cost.layer(layer, x.plan) for x in options] == [dense - frame, sparse - frame]
    assert cost.rest == tiny_model - (tiny - frame)


def test_pytorch_is_the_default(detector):
    assert engine_of("eager", detector) is PYTORCH


@pytest.mark.parametrize(
    "engine, message",
    [
        ("tensorrt", "--engine tensorrt: there is no such engine; one of eager, onnxruntime, op"),
        ("eager:bf16", "--engine eager:bf16: eager has no such precision; one of f32"),
        ("onnxruntime:int8", "--engine onnxruntime:int8: onnxruntime has no such precision; one "),
        ("openvino:f8", "openvino has no such precision; one of f32, bf16"),
    ],
)
def test_engines_and_precisions_that_are_not_there(detector, engine, message):
    with pytest.raises(InputError, match=message) as caught:
        compress_(detector, batches=[[image()]], plan=PLAN, engine=engine)
    assert "\n" not in str(caught.value)
    assert PRECISIONS == {"onnxruntime": ("f32",), "openvino": ("f32", "bf16")}


def test_an_engine_that_is_not_installed_names_its_extra(detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = r'--engine openvino needs openvino: pip install "sparsedet\[openvino\]"'
    with pytest.raises(InputError, match=message):
        compress_(detector, batches=[[image()]], plan=PLAN, engine="openvino")


def test_a_model_that_has_no_exported_form():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    with pytest.raises(InputError, match="a Sequential cannot be exported"):
        compress_(model, task=Task([torch.rand(1, 3, 9, 9)]), params=2, engine="onnxruntime")
