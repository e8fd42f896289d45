#!/usr/bin/env python
"""What uniform compression makes of well-known classifiers, at full size and random weights.

    python tools/research/networks.py > networks.md
    python tools/research/networks.py --engines onnxruntime openvino --threads 2

For each network and each of --factors: how many of its convolutions and fully connected layers are
replaced (the first and the last one stay, and what no factor makes smaller, such as depthwise
ones), parameters and multiply-adds of one image, and with --engines the milliseconds that an
exported file takes, all factors in turns, medians. No weights are needed for that.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
from functools import partial

import sparsedet.cli  # noqa: F401  first, for it keeps quiet what detectron2 warns of as it is imported

# isort: split
import numpy as np
import torch
from detectron2.modeling import build_model
from torch import nn

import sparsedet
from sparsedet.benchmark.counting import count_call
from sparsedet.cli.arguments import positive, threads
from sparsedet.cli.run import run
from sparsedet.compress import count_parameters, even_plan, sparsify_
from sparsedet.layers import LowRankLinear, SparseFusionConv2d
from sparsedet.model_zoo import get_config_file
from sparsedet.modeling import ImageClassifier
from sparsedet.reports.tables import pipe_table
from sparsedet.runtime.classifier import Classifier
from sparsedet.runtime.engines import ENGINES
from sparsedet.timing import environment, milliseconds, take_turns

NETWORKS = (
    "vgg16",
    "resnet50",
    "googlenet",
    "densenet121",
    "inception_v3",
    "mobilenet_v2",
    "vit_b_16",
)
SIZES = {"inception_v3": 299}  # pixels; the others see 224
COMPACT = (SparseFusionConv2d, LowRankLinear)


def build(name: str) -> ImageClassifier:
    """A dense classifier of ImageNet's 1000 classes."""
    keys = ["MODEL.CLASSIFIER.NAME", name, "MODEL.CLASSIFIER.SIZE", str(SIZES.get(name, 224))]
    cfg = sparsedet.load_config(
        get_config_file("Base-Classifier.yaml"), [*keys, "MODEL.DEVICE", "cpu"]
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg, model.class_names = cfg, [str(i) for i in range(1000)]
    return model


@torch.no_grad()
def measure(model: ImageClassifier) -> tuple[int, int, int]:
    """Parameters, multiply-adds of one image, and compact layers."""
    size = model.cfg.MODEL.CLASSIFIER.SIZE
    multiply_adds, _ = count_call(model.network, torch.zeros(1, 3, size, size))
    compact = sum(isinstance(module, COMPACT) for module in model.modules())
    return count_parameters(model), multiply_adds, compact


def untouched(model: nn.Module) -> str:
    """What stays, of the layers with weights: how many of each kind, and their share of weights."""
    inside = {id(m) for c in model.modules() if isinstance(c, COMPACT) for m in c.modules()}
    kinds: dict[str, list[int]] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            inside.add(id(module.out_proj))
            kinds.setdefault("attention", []).append(4 * module.embed_dim**2)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and id(module) not in inside:
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
            kind = "depthwise" if depthwise else "first, last or small"
            kinds.setdefault(kind, []).append(module.weight.numel())
    total = count_parameters(model)
    return ", ".join(
        f"{len(sizes)} {kind} ({100 * sum(sizes) / total:.0f}%)" for kind, sizes in kinds.items()
    )


def rows(name: str, factors: list[float], engines: list[str], count: int | None) -> list[list[str]]:
    """Of a network: dense, and at each factor."""
    dense = build(name)
    models = {"dense": dense}
    for factor in factors:
        plan = even_plan(dense, factor, exclude=[dense.last_layer()])
        models[f"{factor:g}x"] = sparsify_(copy.deepcopy(dense), plan, project=False)
    layers = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in dense.modules())
    sizes = {model: measure(network) for model, network in models.items()}
    times = [time(models, engine, count) for engine in engines]
    found = []
    for model, (parameters, multiply_adds, compact) in sizes.items():
        row = [f"{name}, {model}", "" if model == "dense" else f"{compact} of {layers}"]
        for value, first, unit in (
            (parameters, sizes["dense"][0], 1e6),
            (multiply_adds, sizes["dense"][1], 1e9),
        ):
            row.append(f"{value / unit:.2f}" + (f" ({first / value:.2f}x)" if compact else ""))
        for medians in times:
            ratio = f" ({medians['dense'] / medians[model]:.2f}x)" if compact else ""
            row.append(f"{medians[model]:.1f}{ratio}")
        found.append([*row, untouched(models[model]) if compact else ""])
    return found


def time(models: dict[str, ImageClassifier], engine: str, count: int | None) -> dict[str, float]:
    """Median milliseconds of one image by model, file beside file."""
    with tempfile.TemporaryDirectory() as folder:
        calls = []
        for model, network in models.items():
            end = "xml" if engine == "openvino" else "onnx"
            path = os.path.join(folder, f"{model}.{end}")
            sparsedet.export(network, path)
            size = network.cfg.MODEL.CLASSIFIER.SIZE
            image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
            calls.append(partial(milliseconds, Classifier(path, engine, count), [image]))
        turns = list(take_turns(calls, rounds=10, seconds=5))
    return dict(zip(models, map(statistics.median, zip(*turns))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--factors", nargs="+", type=positive, default=[2, 3, 4], metavar="N")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[])
    parser.add_argument("--threads", type=threads, metavar="N", help="of the CPU (default: all)")
    args = parser.parse_args()
    headings = ["network", "replaced", "parameters, M", "multiply-adds, G"]
    headings += [f"{engine}, ms" for engine in args.engines] + ["what stays (of parameters)"]
    table = [
        row
        for name in args.networks
        for row in rows(name, args.factors, args.engines, args.threads)
    ]
    print(pipe_table(headings, table))
    print("; ".join(f"{key} {value}" for key, value in environment().items()))


if __name__ == "__main__":
    run(main)
