"""Detectors made ready to be timed in every engine."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..compress.survey import count_parameters
from ..exporting.optimize import optimize_for_inference
from ..timing import now
from .machine import Machine, measure_machine
from .memory import peak_rss_mb
from .models import Setting, build_detector, multiply_adds
from .side_by_side import Case
from .stages import stage_bounds, time_stages
from .torchvision_models import TorchvisionDetector

IN_PYTORCH = {"eager": ("f32",), "optimized": ("f32", "bf16")}
EXPORTED = {"onnxruntime": ("f32", "f16", "int8"), "openvino": ("f32", "f16", "bf16", "int8")}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}

RUN_IN_PYTORCH = """
import json, sys
from sparsedet.benchmark.cases import run_once
run_once(**json.loads(sys.argv[1]))
"""
# As where detectron2 and torch are not installed: sparsedet does not import them then.
RUN_EXPORTED = """
import json, sys, warnings
sys.modules["detectron2"] = None
warnings.simplefilter("ignore")
import numpy
from sparsedet.runtime.detector import Detector
arguments, height, width = json.loads(sys.argv[1])
Detector(**arguments)(numpy.zeros((height, width, 3), numpy.uint8))
"""


def make_cases(
    detectors: Sequence[tuple[str, str | None]],
    engines: Sequence[tuple[str, str]],
    setting: Setting,
    folder: str,
) -> list[Case]:
    """Every detector in every engine, for images of that setting.

    Args:
        detectors: config and weights of each, see :func:`build_detector`.
        engines: name and precision of each, of IN_PYTORCH or EXPORTED.
        folder: where exported files go; one that is there for as many proposals is used again.

    Raises:
        InputError: as :func:`build_detector`, export and Detector.
    """
    made = []
    for i, (config, weights) in enumerate(detectors):
        model = build_detector(config, weights, setting)
        size = {
            "params": count_parameters(model),
            "multiply_adds": multiply_adds(model, setting),
        }
        for name, precision in engines:
            if name in IN_PYTORCH:
                ready = _in_pytorch(model, config, weights, name, precision, setting)
            else:
                own_folder = os.path.join(folder, f"{i}-{setting.proposals}")
                ready = _exported(model, name, precision, setting, own_folder)
            made.append(Case(config, name, precision, **size, **ready))
    return made


def run_once(
    config: str, weights: str | None, name: str, precision: str, setting: dict[str, int]
) -> None:
    """Load and run; what RUN_IN_PYTORCH measures."""
    setting = Setting(**setting)
    torch.set_num_threads(setting.threads)
    detect(_runnable(build_detector(config, weights, setting), name, precision), setting.images())


@torch.no_grad()
def detect(model: nn.Module, images: Sequence[np.ndarray]) -> list[dict]:
    """As ``DefaultPredictor``, without resizing and with any number of images (H, W, 3), BGR."""
    if model.input_format == "RGB":
        images = [image[:, :, ::-1] for image in images]
    pixels = [torch.as_tensor(image.astype("float32").transpose(2, 0, 1)) for image in images]
    return model([{"image": image} for image in pixels])


def _runnable(model: nn.Module, name: str, precision: str) -> nn.Module:
    return model if name == "eager" else optimize_for_inference(model, DTYPES[precision])


def _in_pytorch(
    model: nn.Module,
    config: str,
    weights: str | None,
    name: str,
    precision: str,
    setting: Setting,
) -> dict:
    runnable = _runnable(model, name, precision)
    same = {"config": config, "weights": weights, "name": name, "precision": precision}
    ready = {
        "run": lambda images: detect(runnable, images),
        "file_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "peak_rss_mb": peak_rss_mb(
            RUN_IN_PYTORCH, json.dumps({**same, "setting": asdict(setting)})
        ),
    }
    if isinstance(model, TorchvisionDetector):
        return ready
    dtype = DTYPES[precision]
    return {
        **ready,
        "time_stages": lambda images: time_stages(runnable, lambda: detect(runnable, images)),
        "bounds": stage_bounds(
            model,
            lambda: detect(model, setting.images()),
            _best_rates(model.device, dtype, setting.threads),
            dtype.itemsize,
        ),
    }


@cache
def _best_rates(device: torch.device, dtype: torch.dtype, threads: int) -> Machine:
    machine = measure_machine(device, dtype)
    print(f"{device}, {dtype}, {threads} threads: {machine}")
    return machine


def _exported(model: nn.Module, name: str, precision: str, setting: Setting, folder: str) -> dict:
    from ..runtime.detector import Detector

    # What bf16 drops of a weight is more than what f16 drops.
    stored, computed = ("f16", "bf16") if precision == "bf16" else (precision, "f32")
    folder = os.path.join(folder, f"{name}-{stored}")
    path = os.path.join(folder, "model.xml" if name == "openvino" else "model.onnx")
    if not os.path.exists(folder):
        os.makedirs(folder)
        _export(model, path, stored, setting)
        os.sync()  # or loading would wait for the disk
    arguments = {"path": path, "engine": name, "threads": setting.threads, "precision": computed}
    start = now()
    detector = Detector(**arguments)
    load_ms = 1000 * (now() - start)
    return {
        "load_ms": load_ms,
        "run": lambda images: [detector(image) for image in images],
        "file_bytes": sum(file.stat().st_size for file in os.scandir(folder)),
        "peak_rss_mb": peak_rss_mb(
            RUN_EXPORTED, json.dumps([arguments, setting.height, setting.width])
        ),
    }


def _export(model: nn.Module, path: str, precision: str, setting: Setting) -> None:
    from ..exporting.exporter import export_graph

    picture = f"{path}.png"  # int8 needs some image; here any will do
    Image.fromarray(setting.images()[0]).save(picture)
    with _all_proposals_kept(model.proposal_generator):
        export_graph(
            model,
            path,
            class_names=[str(i) for i in range(model.roi_heads.num_classes)],
            min_size=0,
            max_size=0,
            precision=precision,
            images=[picture],
        )
    os.remove(picture)


@contextmanager
def _all_proposals_kept(rpn: nn.Module) -> Iterator[None]:
    """Nothing is suppressed, and the boxes are the anchors themselves.

    Random weights would make many of them empty.
    """
    deltas = rpn.rpn_head.anchor_deltas
    weights, threshold = copy.deepcopy(deltas.state_dict()), rpn.nms_thresh
    for parameter in deltas.parameters():
        parameter.data.zero_()
    rpn.nms_thresh = 1.0
    try:
        yield
    finally:
        deltas.load_state_dict(weights)
        rpn.nms_thresh = threshold
