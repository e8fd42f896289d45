#!/usr/bin/env python
"""What detectron2's stock models cost, dense and compact: a table in Markdown.

    python tools/research/stock_models.py
    python tools/research/stock_models.py COCO-Detection/retinanet_R_50_FPN_1x.yaml

All have random weights, for no cost depends on them: parameters, the size of a file of them in
float32, and multiply-adds for one image of --size, with 1000 proposals where the model makes any,
and up to 100 detections where masks or keypoints are looked for in them. A compact model is that of
a uniform plan (checkerboard; one ratio for all layers but those that answer) with a half and a
quarter of the parameters; n/a where no ratio gets there. Times are of PyTorch, optimized for
inference (dense too), medians of --rounds in which the three take turns.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Mapping
from functools import partial

import sparsedet.cli  # noqa: F401  first, for it keeps quiet what detectron2 warns of as it is imported

# isort: split
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model
from torch import nn

from sparsedet.benchmark.counting import counting, random_proposals
from sparsedet.benchmark.stages import fix_proposals
from sparsedet.cli.arguments import positive
from sparsedet.cli.run import run
from sparsedet.compress import uniform_plan
from sparsedet.compress.candidates import dense_layers
from sparsedet.compress.plan import Plan, compact_weights
from sparsedet.compress.surgery import sparsify_
from sparsedet.compress.survey import count_parameters
from sparsedet.detection.config import load_config
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.exporting.optimize import optimize_for_inference
from sparsedet.hooks import attached
from sparsedet.latency import compare_latency
from sparsedet.timing import environment

PROPOSALS = 1000
FACTORS = (2, 4)
STOCK = (
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml",
    "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/rpn_R_50_FPN_1x.yaml",
    "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "COCO-Detection/fcos_R_50_FPN_1x.py",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py",
    "COCO-InstanceSegmentation/mask_rcnn_regnety_4gf_dds_fpn_1x.py",
    "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml",
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "Misc/semantic_R_50_FPN_1x.yaml",
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
)
HEADINGS = (
    *("model", "parameters", "file", "multiply-adds", "ms"),
    *(f"{what} at {factor}x" for factor in FACTORS for what in ("file", "multiply-adds", "ms")),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", default=STOCK, metavar="CONFIG")
    parser.add_argument("--size", default=(800, 1344), type=_size, metavar="HEIGHTxWIDTH")
    parser.add_argument("--rounds", default=3, type=positive)
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return positive(height), positive(width)


def build(config: str, height: int, width: int) -> nn.Module:
    """A stock model with random weights, of as many proposals and detections as there may be."""
    try:
        path = model_zoo.get_config_file(config)
    except RuntimeError as error:
        raise InputError(f"{config}: {error}") from error
    torch.manual_seed(0)
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])).eval()
    heads = getattr(model, "roi_heads", None)
    if heads is not None:
        predictors = heads.box_predictor
        for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
            # Random weights give every class about the same score.
            predictor.test_score_thresh = 1 / (2 + heads.num_classes)
        if hasattr(heads, "keypoint_head"):  # which asserts that its maps stay in range
            nn.init.zeros_(heads.keypoint_head.score_lowres.weight)
        if getattr(model, "proposal_generator", None) is not None:
            fix_proposals(model, PROPOSALS, height, width)
    return model


@torch.no_grad()
def count(model: nn.Module, height: int, width: int) -> tuple[int, Mapping[str, float]]:
    """Multiply-adds for one image, and how many output positions each layer has in it."""
    positions: Counter = Counter()

    def add(name, layer, args, output):
        positions[name] += output.numel() / len(layer.weight)

    layers = dense_layers(model).items()
    hooks = (layer.register_forward_hook(partial(add, name)) for name, layer in layers)
    with attached(hooks), counting() as total:
        model([an_image(model, height, width)])
        return total(), positions


def an_image(model: nn.Module, height: int, width: int) -> dict:
    """Black, and with proposals for a model that makes none."""
    image = {"image": torch.zeros(3, height, width), "height": height, "width": width}
    if getattr(model, "proposal_generator", model) is None:
        image["proposals"] = random_proposals(PROPOSALS, height, width)
    return image


def plan_by_factor(model: nn.Module, factor: float) -> Plan | None:
    """The uniform plan of the least ratio with which parameters shrink by ``factor``."""
    answers, before = DetectionTask([[]]).answers(model), count_parameters(model)
    layers = dense_layers(model)

    def plan(ratio):
        return uniform_plan(model, "checkerboard", ratio, exclude=answers)

    def shrinks(ratio):
        saved = sum(
            layers[name].weight.numel() - compact_weights(layers[name], entry)
            for name, entry in plan(ratio).items()
        )
        return before >= factor * (before - saved)

    low, high = 1.0, 64.0
    if not shrinks(high):
        return None
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if shrinks(middle) else (middle, high)
    return plan(high)


def cells(model: nn.Module, height: int, width: int, rounds: int) -> list[str]:
    """Those of a row, but for the model's name."""
    multiply_adds, positions = count(model, height, width)
    layers, parameters = dense_layers(model), count_parameters(model)
    costs, models = {1: (parameters, multiply_adds)}, {"1": optimize_for_inference(model)}
    for factor in FACTORS:
        plan = plan_by_factor(model, factor)
        if plan is None:
            continue
        saved = {
            name: layers[name].weight.numel() - compact_weights(layers[name], entry)
            for name, entry in plan.items()
        }
        work = multiply_adds - sum(positions[name] * weights for name, weights in saved.items())
        costs[factor] = (parameters - sum(saved.values()), work)
        compact = sparsify_(copy.deepcopy(model), plan, project=False)
        models[str(factor)] = optimize_for_inference(compact)
    latency = compare_latency(models, [[an_image(model, height, width)]], rounds, warmup=1)
    row = [f"{parameters / 1e6:.1f} M"]
    for factor in (1, *FACTORS):
        if factor not in costs:
            row += ["n/a"] * 3
            continue
        size, work = costs[factor]
        ms = latency[str(factor)].median
        ratio = f" ({latency['1'].median / ms:.2f}x)" if factor > 1 else ""
        row += [f"{4 * size / 1e6:.0f} MB", f"{work / 1e9:.0f} G", f"{ms:.0f}{ratio}"]
    return row


def main() -> None:
    args = parse_args()
    facts = ", ".join(f"{name} {fact}" for name, fact in environment().items())
    print(f"{facts}\n\n| {' | '.join(HEADINGS)} |\n|:--|{'--:|' * (len(HEADINGS) - 1)}")
    for config in args.configs:
        row = cells(build(config, *args.size), *args.size, args.rounds)
        print(f"| {config} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run(main)
