#!/usr/bin/env python
"""Fewer channels beside lower ranks, at equal multiply-adds, pair by pair of a detector's trunk.

    python tools/research/compare_widths.py --config-file dense/config.yaml \\
        --weights dense/model_final.pth --images photos --ratio 4 --output widths.md

A pair is a layer whose output one other layer alone reads, and that layer. Both together are
planned to --ratio times fewer multiply-adds, once by ranks alone and once by ranks and channels,
and are calibrated on half of the images. The error is that of the second layer's output on the
others, all else in the trunk being dense.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from sparsedet.cli.model_arguments import calibration_parser, model_config
from sparsedet.cli.run import run
from sparsedet.compress import LayerPlan, Plan, Profile, Task, plan_for_targets
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.links import Link, find_links
from sparsedet.compress.profile import profile_layers
from sparsedet.detection.images import load_images
from sparsedet.detection.load import load_model
from sparsedet.errors import InputError
from sparsedet.files import replacing
from sparsedet.hooks import attached
from sparsedet.reports.tables import pipe_table

LEGEND = """\
Error: the summed squared error of the second layer's output, over the summed square of the dense
one's, both taken after the norm and the activation that it has; calibrated on {seen} images,
measured on {unseen} others. All outputs count alike. Each pair has {ratio:g} times fewer
multiply-adds, or a little more than that."""


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
    parser.set_defaults(num_images=20)
    parser.add_argument("--ratio", type=float, default=4.0, help="default: 4")
    parser.add_argument("--output", metavar="FILE.md", help="where to write the table as well")
    args = parser.parse_args()
    if args.num_images < 2:
        parser.error("--num-images must be at least 2")
    return args


def pair_plans(profile: Profile, producer: str, ratio: float) -> tuple[Plan, Plan]:
    """By ranks alone, and by ranks and channels.

    Raises:
        InputError: the ratio is out of reach.
    """
    width = profile.widths[producer]
    layers = {name: profile.layers[name] for name in (producer, width.link.reader)}
    work = sum(layer.outputs * layer.options[0].weights for layer in layers.values())
    pair = Profile(layers, 0, work, {producer: width})
    return tuple(
        plan_for_targets(some, {"flops": ratio}) for some in (replace(pair, widths={}), pair)
    )


@torch.no_grad()
def unseen_error(
    trunk: nn.Module, plan: Plan, links: Mapping[str, Link], reader: str, seen: Task, unseen: Task
) -> float:
    """What LEGEND says."""
    compact = copy.deepcopy(trunk)
    calibrate_(compact, plan, seen, links=links)
    outputs: list[torch.Tensor] = []
    wrong = total = 0.0
    layers = [network.get_submodule(reader) for network in (trunk, compact)]
    keep = (m.register_forward_hook(lambda m, args, y: outputs.append(y.clone())) for m in layers)
    with attached(keep):
        for batch in unseen.batches:
            outputs.clear()
            unseen.forward(trunk, batch)
            unseen.forward(compact, batch)
            calls = len(outputs) // 2
            for y, z in zip(outputs[:calls], outputs[calls:]):
                wrong += (y - z).square().sum().item()
                total += y.square().sum().item()
    return wrong / total


def compare(args: argparse.Namespace) -> str:
    """The table in Markdown."""
    cfg = model_config(args)
    model = load_model(cfg)
    images = load_images(cfg, args.images, args.num_images, progress=True)
    half = len(images) // 2
    if not half:
        raise InputError("one image is not enough: some are to calibrate on, some to measure on")
    inputs = [model.preprocess_image(batch).tensor for batch in images]
    seen, unseen, trunk = Task(inputs[:half]), Task(inputs[half:]), model.backbone
    links, _ = find_links(trunk, seen)
    if not links:
        raise InputError("no layer of the trunk has an output that one other layer alone reads")
    profile = profile_layers(trunk, seen, progress=True, links=links)
    rows = []
    for name, width in tqdm(profile.widths.items(), "pairs"):
        reader, cells, errors = width.link.reader, [], []
        for plan in pair_plans(profile, name, args.ratio):
            errors.append(unseen_error(trunk, plan, links, reader, seen, unseen))
            parts = [str(plan.get(part, LayerPlan())) for part in (name, reader)]
            cells += ["; ".join(parts), f"{errors[-1]:.4f}"]
        rows.append([name, reader, *cells, f"{errors[1] / errors[0]:.2f}"])
    headings = ["layer", "reader", "ranks alone", "error", "ranks and channels", "error", "ratio"]
    legend = LEGEND.format(seen=half, unseen=len(inputs) - half, ratio=args.ratio)
    return f"{pipe_table(headings, rows, left=(0, 1, 2, 4))}\n\n{legend}"


def main() -> None:
    args = parse_args()
    text = compare(args)
    print(text)
    if args.output:
        with replacing(args.output) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    run(main)
