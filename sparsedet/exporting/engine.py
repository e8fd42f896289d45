"""Layers and models timed where they will run: exported, in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..compress import Task
from ..compress.engine import PYTORCH, Engine
from ..errors import InputError
from ..extras import require
from ..hooks import evaluating, plain_attention
from ..layers import LowRankLinear
from ..modeling import ImageClassifier
from ..runtime.engines import PRECISIONS, Graph, load_graph
from ..telemetry import require_engine
from .classifier import ClassificationGraph
from .exporter import export_graph, trace
from .graph import DetectionGraph, on_cpu

EAGER = "eager"


class ExportedEngine(Engine):
    """An engine that runs exported files, with as many threads as PyTorch has.

    Args:
        model: one of those that are to be timed.

    Raises:
        InputError: the engine is not installed, or has no such precision, here or at all; or the
            model cannot be exported.
    """

    def __init__(self, name: str, precision: str, model: nn.Module):
        self.engine, self.precision = name, precision
        self.name = f"{name} {precision}"
        require("onnx", f"--engine {name}")
        require_engine(name, f"--engine {name}")
        if not isinstance(model, ImageClassifier):
            with evaluating(model):
                DetectionGraph(model)
        self.layer(nn.Linear(1, 1), [torch.zeros(1, 1)])  # does it run here in this precision?

    def layer(
        self, layer: nn.Module, inputs: Sequence[torch.Tensor]
    ) -> tuple[Callable[[np.ndarray], Any], list[np.ndarray]]:
        """The layer exported as it runs in a model.

        An engine has the maps inside of a model in a format of its own. Into that one a map from
        outside would have to be brought, and back: that takes as long as many a layer. So of what a
        convolution reads only the first channel comes from outside, and a 1x1 convolution spreads
        it over all; of what it gives, one position in 64 by 64 leaves the graph.
        """
        inputs = [x for x in inputs if x.numel()]
        if not inputs:  # as where a mask head gets no boxes
            return lambda x: None, []
        if not _is_linear(layer):
            layer, inputs = _Inside(layer, inputs[0].shape[1]), [x[:, :1] for x in inputs]
        layer, inputs = on_cpu(layer), [x.cpu() for x in inputs]
        graph = self._load(lambda path: _trace_layer(layer, inputs, path))
        return graph, [np.ascontiguousarray(x.numpy()) for x in inputs]

    def frame(
        self, layer: nn.Module, inputs: Sequence[torch.Tensor]
    ) -> tuple[Callable[[np.ndarray], Any], list[np.ndarray]] | None:
        """The graph of :meth:`layer` without the layer, where that is a convolution."""
        return None if _is_linear(layer) else self.layer(nn.Identity(), inputs)

    def model(self, model: nn.Module, task: Task) -> Callable[[Any], Any]:
        """The model exported; the images of a batch go through it one by one."""

        def write(path: str) -> None:
            if isinstance(model, ImageClassifier):
                _trace_classifier(model, path)
            else:
                export_graph(model, path, class_names=[], min_size=0, max_size=0)

        graph = self._load(write)
        seen: dict[int, np.ndarray] = {}  # by image, which the task holds

        def run(batch: Any) -> None:
            for image in batch:
                if id(image) not in seen:  # before what is timed
                    seen[id(image)] = _pixels(image)
                graph(seen[id(image)])

        return run

    def _load(self, write: Callable[[str], None]) -> Graph:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            write(path)
            return load_graph(path, self.engine, torch.get_num_threads(), self.precision)[0]


def engine_of(text: str, model: nn.Module) -> Engine:
    """The engine that a user calls ``eager``, ``onnxruntime`` or ``openvino:bf16``.

    Raises:
        InputError: there is none, or as :class:`ExportedEngine`.
    """
    name, precision = parse_engine(text, {EAGER: ("f32",), **PRECISIONS})
    return PYTORCH if name == EAGER else ExportedEngine(name, precision, model)


def parse_engine(text: str, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Name and precision of ``NAME`` or ``NAME:PRECISION``; f32 is the default.

    Args:
        known: precisions of each engine.

    Raises:
        InputError: an engine or precision that is not known.
    """
    name, _, precision = text.partition(":")
    if name not in known:
        raise InputError(f"--engine {text}: there is no such engine; one of {', '.join(known)}")
    precision = precision or "f32"
    if precision not in known[name]:
        raise InputError(
            f"--engine {text}: {name} has no such precision; one of {', '.join(known[name])}"
        )
    return name, precision


class _Inside(nn.Module):
    """A convolution between one that spreads a channel over ``channels``, and a pooling.

    Of a 1x1 pooling no engine looks at what it passes over, and none brings its input elsewhere.
    """

    def __init__(self, layer: nn.Module, channels: int):
        super().__init__()
        self.before = nn.Conv2d(1, channels, 1, bias=False)
        nn.init.ones_(self.before.weight)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.layer(self.before(x)), 1, stride=64)


def _is_linear(layer: nn.Module) -> bool:
    """Also of maps (N, H, W, C), as a transformer has them, which no engine reorders."""
    return isinstance(layer, (nn.Linear, LowRankLinear))


def _trace_layer(layer: nn.Module, inputs: Sequence[torch.Tensor], path: str) -> None:
    """Sizes are free, as in an exported model; where there is one image, their number is not."""
    x = inputs[0].contiguous()
    free = {0: "items"} if any(len(x) != 1 for x in inputs) else {}
    if x.dim() == 4:
        free |= {2: "rows", 3: "columns"}
    with evaluating(layer):
        trace(layer, x, path, ["output"], {"image": free})


def _trace_classifier(model: ImageClassifier, path: str) -> None:
    size = model.cfg.MODEL.CLASSIFIER.SIZE
    example = torch.zeros(size, size, 3, dtype=torch.uint8)
    with plain_attention():
        trace(ClassificationGraph(model), example, path, ["probabilities"])


def _pixels(image: Mapping[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 of a detectron2 input."""
    pixels = image["image"].permute(1, 2, 0)
    return np.ascontiguousarray(pixels.round().clamp(0, 255).to(torch.uint8).numpy())
