#!/usr/bin/env python
"""Which sparse kernels are the most faithful at equal cost, convolution by convolution.

    python tools/research/compare_patterns.py --config-file dense/config.yaml \\
        --weights dense/model_final.pth --images photos --output patterns.md

Each convolution by itself takes every pattern in turn, calibrated on half of the images, on what it
gets in the dense model. All patterns cost what `rows` costs with kernels of (output channels /
--ratio) outputs: the others get the largest equal ranks that cost no more. The error is measured on
the other half of the images. "whole" is plain low rank; "mixed" is the best of all, layer by layer.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from sparsedet.cli.model_arguments import calibration_parser, model_config
from sparsedet.cli.run import run
from sparsedet.compress import (
    LayerPlan,
    LayerProfile,
    Option,
    Profile,
    Sensitivity,
    uniform_plan,
)
from sparsedet.compress.candidates import can_fuse
from sparsedet.compress.fit import PATCHES, layer_fit
from sparsedet.compress.layer_times import measure_latency
from sparsedet.compress.moments import Moments
from sparsedet.compress.observe import observe
from sparsedet.compress.patches import count_patches, take_patches, weight_matrix
from sparsedet.compress.plan import compact_weights
from sparsedet.compress.surgery import compact_twin
from sparsedet.compress.survey import Sample, Survey, count_parameters
from sparsedet.detection.images import load_images
from sparsedet.detection.load import load_model
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.files import replacing
from sparsedet.kernels import PATTERNS, sparse_kernels
from sparsedet.reports.tables import pipe_table
from sparsedet.timing import environment

Plans = dict[str, list[LayerPlan]]
"""For each layer by name, a plan per pattern, in the order of PATTERNS."""

LEGEND = """\
Error: the summed squared error of a layer's output, over the summed square of the dense layer's
output. Both are taken after the norm and the activation that the layer itself has. Its input is the
dense model's; it was calibrated on {seen} images and measured on {unseen} others. Weights are also
the multiply-adds at one output position. Milliseconds are medians on an image of median size, taken
in turns, with {environment}."""


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
    parser.set_defaults(num_images=40)
    parser.add_argument("--ratio", type=float, default=4.0, help="default: 4")
    parser.add_argument(
        "--layers", nargs="+", default=["*"], metavar="NAME", help="by name, or patterns of names"
    )
    parser.add_argument("--output", metavar="FILE.md", help="where to write the tables as well")
    args = parser.parse_args()
    if args.num_images < 2:
        parser.error("--num-images must be at least 2")
    return args


def plans_of_equal_cost(model: nn.Module, ratio: float, names: Sequence[str]) -> Plans:
    """Of each named convolution that every pattern splits and that `rows` makes smaller.

    Raises:
        InputError: there are none, or the ratio leaves some pattern less than one rank.
    """
    plans: Plans = {}
    for name, rows in uniform_plan(model, "rows", ratio, names, windows_only=True).items():
        conv = model.get_submodule(name)
        if conv.groups > 1 or not all(can_fuse(conv, pattern) for pattern in PATTERNS):
            continue
        budget = compact_weights(conv, rows)
        plans[name] = []
        for pattern in PATTERNS:
            kernels = len(sparse_kernels(pattern, conv.kernel_size))
            rank = budget // compact_weights(conv, LayerPlan((1,) * kernels, pattern))
            if not rank:
                raise InputError(f"--ratio {ratio:g} leaves no rank for {pattern} in {name}")
            plans[name].append(LayerPlan((rank,) * kernels, pattern))
    if not plans:
        raise InputError(
            f"--layers {' '.join(names)}: no dense convolution wider than 1x1 that --ratio "
            f"{ratio:g} makes smaller"
        )
    return plans


@torch.no_grad()
def measure_errors(
    model: nn.Module,
    plans: Plans,
    seen: DetectionTask,
    unseen: DetectionTask,
) -> dict[str, list[float]]:
    """What LEGEND says, of each layer under each of its plans, in the order in which they run.

    Layers that do not run are left out. The statistics of all are held at once, 1.4 GB for VGG-16.
    """
    layers = {name: model.get_submodule(name) for name in plans}
    outputs = Survey(model, layers, seen.batches, seen.forward).outputs
    sample = Sample(
        {name: count * len(seen.batches) for name, count in outputs.items()},
        {name: PATCHES * layers[name].weight[0].numel() for name in outputs},
    )
    moments = {name: Moments(centered=layers[name].bias is not None) for name in outputs}
    squares = {name: torch.zeros(1 + len(PATTERNS), dtype=torch.double) for name in outputs}
    twins = {}

    def look(name, image, call, x):
        layer = layers[name]
        patches = take_patches(layer, x, sample(name, image, call, count_patches(layer, x)))
        y = F.linear(patches, weight_matrix(layer.weight), layer.bias)
        moments[name].add(patches, y)

    def compare(name, image, call, x):
        y = layers[name].forward(x)  # layers[name](x) would come back here
        for m, wrong in enumerate([y, *(twin(x) - y for twin in twins[name])]):
            squares[name][m] += wrong.square().sum(dtype=torch.double).cpu()

    def run_all(task, visit, title):
        visits = {layers[name]: partial(visit, name) for name in outputs}
        batches = task.batches
        for _ in tqdm(observe(model, batches, task.forward, visits), title, len(batches)):
            pass

    run_all(seen, look, "calibration")
    for name in tqdm(outputs, "patterns", unit="layer"):
        known = moments.pop(name)
        twins[name] = [_calibrated(layers[name], plan, known) for plan in plans[name]]
    run_all(unseen, compare, "errors")
    return {name: (squares[name][1:] / squares[name][0]).tolist() for name in outputs}


def _calibrated(layer: nn.Conv2d, plan: LayerPlan, moments: Moments) -> nn.Module:
    fit = layer_fit(layer, compact_twin(layer, plan, project=True), Sensitivity())
    fit.moments = [copy.deepcopy(moments)]  # solving uses them up
    fit.solve()
    return fit.compact


def measure_times(model: nn.Module, plans: Plans, task: DetectionTask) -> dict[str, list[float]]:
    """Milliseconds of each layer: dense, and then under each of its plans."""
    profiles = {}
    for name in plans:
        dense, *weights = _weights(model.get_submodule(name), plans[name])
        options = [Option(plan, count, math.nan) for plan, count in zip(plans[name], weights)]
        profiles[name] = LayerProfile(1, [Option(None, dense, 0.0), *options])
    profile = Profile(profiles, count_parameters(model), 0.0)
    cost = measure_latency(model, profile, task, progress=True)
    return {name: [cost.layer(name, plan) for plan in (None, *plans[name])] for name in plans}


def _weights(layer: nn.Conv2d, plans: Sequence[LayerPlan]) -> list[int]:
    return [layer.weight.numel(), *(compact_weights(layer, plan) for plan in plans)]


def markdown(
    title: str,
    values: Mapping[str, Sequence[float]],
    best: Mapping[str, int],
    form: str,
    summary: Callable[[Iterable[float]], float],
) -> str:
    """One table: a row per layer, a column per form of it, dense first.

    Args:
        best: the number of the form that "mixed" takes in each layer.
        summary: of each column, in the last row.
    """
    forms = ["dense", *PATTERNS]
    rows = {name: [*values[name], values[name][choice]] for name, choice in best.items()}
    rows[summary.__name__] = [summary(column) for column in zip(*rows.values())]
    cells = [
        [name, *map(form.format, row), forms[best[name]] if name in best else ""]
        for name, row in rows.items()
    ]
    headings = ["layer", *forms, "mixed", "which is"]
    table = pipe_table(headings, cells, left=(0, len(headings) - 1))
    return f"**{title}**\n\n{table}"


def compare(args: argparse.Namespace) -> str:
    """The tables in Markdown."""
    cfg = model_config(args)
    model = load_model(cfg)
    plans = plans_of_equal_cost(model, args.ratio, args.layers)
    images = load_images(cfg, args.images, args.num_images, progress=True)
    # The first and the last by name: neighbours in a folder are often pictures of one scene.
    half = len(images) // 2
    if not half:
        raise InputError("one image is not enough: some are to calibrate on, some to measure on")
    seen, unseen = DetectionTask(images[:half]), DetectionTask(images[half:])
    errors = measure_errors(model, plans, seen, unseen)
    plans = {name: plans[name] for name in errors}
    times = measure_times(model, plans, DetectionTask(images))
    sizes = {name: _weights(model.get_submodule(name), plans[name]) for name in plans}
    best = {name: 1 + values.index(min(values)) for name, values in errors.items()}
    facts = ", ".join(f"{name} {value}" for name, value in environment().items())
    return "\n\n".join(
        [
            markdown("Error", {n: [0.0, *v] for n, v in errors.items()}, best, "{:.4f}", mean),
            markdown("Milliseconds", times, best, "{:.2f}", sum),
            markdown("Weights", sizes, best, "{:,}", sum),
            LEGEND.format(seen=half, unseen=len(images) - half, environment=facts),
        ]
    )


def main() -> None:
    args = parse_args()
    text = compare(args)
    print(text)
    if args.output:
        with replacing(args.output) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    run(main)
