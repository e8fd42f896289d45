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
from ..modeling import ImageClassifier
from ..runtime.engines import PRECISIONS, Graph, load_graph
from ..telemetry import require_engine
from .classifier import ClassificationGraph
from .exporter import export_graph, trace
from .graph import DetectionGraph

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
        """The layer exported by itself.

        Of the output of a convolution only the largest number in each channel leaves the graph:
        to copy all out would take longer than many a layer.
        """
        inputs = [x for x in inputs if x.numel()]
        if not inputs:  # as where a mask head gets no boxes
            return lambda x: None, []
        graph = self._load(lambda path: _trace_layer(layer, inputs, path))
        return graph, [np.ascontiguousarray(x.detach().cpu().numpy()) for x in inputs]

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


class _Alone(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return F.adaptive_max_pool2d(y, 1) if y.dim() == 4 else y


def _trace_layer(layer: nn.Module, inputs: Sequence[torch.Tensor], path: str) -> None:
    """Sizes are free, as in an exported model; where there is one image, their number is not."""
    x = inputs[0].contiguous()
    free = {0: "items"} if any(len(x) != 1 for x in inputs) else {}
    if x.dim() == 4:
        free |= {2: "rows", 3: "columns"}
    with evaluating(layer):
        trace(_Alone(layer), x, path, ["output"], {"image": free})


def _trace_classifier(model: ImageClassifier, path: str) -> None:
    size = model.cfg.MODEL.CLASSIFIER.SIZE
    example = torch.zeros(size, size, 3, dtype=torch.uint8, device=model.device)
    with plain_attention():
        trace(ClassificationGraph(model), example, path, ["probabilities"])


def _pixels(image: Mapping[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 of a detectron2 input."""
    pixels = image["image"].permute(1, 2, 0)
    return np.ascontiguousarray(pixels.round().clamp(0, 255).to(torch.uint8).numpy())
