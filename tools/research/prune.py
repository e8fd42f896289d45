#!/usr/bin/env python
"""Prune the channels of a VGG detector, to compare with: the library torch-pruning.

    python tools/research/prune.py --config-file dense/config.yaml \\
        --weights dense/model_final.pth --images photos --target-flops 3x --output pruned

Of every convolution of the backbone and of fc6 and fc7, torch-pruning removes the same share of
channels, those of the least norm, but none of those that more than one head reads (conv5_3's). With
--global-ranking the norms of all convolutions are ranked together, relative to the mean of their
layer, of which each keeps a sixteenth at least (fc6 and fc7 must stay of one size). The
layers that are left, but for fc6, whose inputs are too many for it, are then fitted to the dense
ones' outputs on images, one after another (He et al., arXiv 1707.06168), as tools/compress.py does
it, for a fair comparison.

The new folder --output gets config.yaml and model.pth, plain detectron2 after ``import sparsedet``,
with the schedule of fine-tuning that tools/compress.py sets:

    python tools/train_net.py --config-file pruned/config.yaml
"""

from __future__ import annotations

import argparse
import copy
import math
import os
from collections.abc import Mapping
from itertools import chain

import sparsedet.cli  # noqa: F401  first, for it keeps quiet what detectron2 warns of as it is imported

# isort: split
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.cli.model_arguments import calibration_parser, factor, model_config
from sparsedet.cli.run import run
from sparsedet.compress.candidates import compact_layers
from sparsedet.compress.fit import DenseFit, wanted_samples
from sparsedet.compress.observe import observe
from sparsedet.compress.patches import count_patches, take_patches, weight_matrix
from sparsedet.compress.sensitivity import Sensitivity
from sparsedet.compress.survey import Sample, count_parameters
from sparsedet.detection.config import compact_config
from sparsedet.detection.load import load_model
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.extras import require
from sparsedet.files import new_folder
from sparsedet.modeling import dense_config

STEPS = 100
"""Steps from all channels to none; as many are taken as the target needs."""

MULTIPLE = 8
"""Numbers of channels stay multiples of it, for speed."""

MOST = 1 - 1 / 16
"""Share of a layer's channels that a global ranking may remove: an empty one ends the network."""

FC6 = "roi_heads.box_head.fc6"


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
    parser.add_argument(
        "--target-flops",
        type=factor,
        required=True,
        metavar="FACTORx",
        help="by which the multiply-adds are to shrink",
    )
    parser.add_argument(
        "--global-ranking", action="store_true", help="not the same share of every convolution"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    if not args.target_flops > 1:
        parser.error("--target-flops must be above 1")
    return args


def layers_to_prune(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions of the backbone, fc6, fc7 and the predictors, which read fc7."""
    parts = "backbone.", "roi_heads.box_head.", "roi_heads.box_predictor."
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(parts) and isinstance(module, (nn.Conv2d, nn.Linear))
    }


def multiply_adds(model: nn.Module, outputs: Mapping[str, float]) -> float:
    layers = layers_to_prune(model)
    return sum(outputs[name] * layer.weight.numel() for name, layer in layers.items())


def prune_channels(
    model: nn.Module,
    outputs: Mapping[str, float],
    factor: float,
    rest: float = 0.0,
    global_ranking: bool = False,
) -> dict[str, torch.Tensor]:
    """Remove channels until the multiply-adds of ``model`` are ``factor`` times fewer.

    Args:
        outputs: how many positions the output of each of :func:`layers_to_prune` has.
        rest: multiply-adds of all other layers.
        global_ranking: choose among the channels of all convolutions, not within each.

    Returns:
        for each layer, the numbers of the channels that are left

    Raises:
        InputError: torch-pruning is not installed, or the factor is out of reach.
    """
    torch_pruning = require("torch_pruning", "pruning")
    vgg, heads = model.backbone, model.roi_heads
    names = {layer: name for name, layer in layers_to_prune(model).items()}
    features = {vgg.stages[int(name[-1]) - 1][-1] for name in vgg.output_shape()}
    side = heads.box_pooler.output_size
    model.requires_grad_(True)  # by which it finds out what is connected with what
    pruners = [
        torch_pruning.pruner.BasePruner(
            network,
            torch.zeros(1, *shape, device=model.device),
            torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=global_ranking and network is vgg,
            pruning_ratio=1.0,
            max_pruning_ratio=MOST if global_ranking and network is vgg else 1.0,
            iterative_steps=STEPS,
            round_to=MULTIPLE,
            ignored_layers=ignored,
        )
        for network, shape, ignored in (
            (vgg, (3, 64, 64), [getattr(vgg, name) for name in features]),
            (
                nn.Sequential(heads.box_head, heads.box_predictor),
                (heads.box_head.fc6.in_features // math.prod(side), *side),
                [heads.box_predictor],
            ),
        )
    ]
    kept = {name: torch.arange(len(layer.weight)) for layer, name in names.items()}
    dense = work = multiply_adds(model, outputs) + rest
    while dense < factor * work:
        if pruners[0].current_step == STEPS:
            raise InputError(
                f"--target-flops {factor:g}x: out of reach; at most {dense / work:.1f}x"
            )
        for group in chain.from_iterable(pruner.step(interactive=True) for pruner in pruners):
            name, removed = names[group[0].dep.target.module], set(group[0].idxs)
            left = [channel for i, channel in enumerate(kept[name].tolist()) if i not in removed]
            kept[name] = torch.tensor(left)
            group.prune()
        work = multiply_adds(model, outputs) + rest
    return kept


@torch.no_grad()
def refit(
    model: nn.Module,
    dense: nn.Module,
    kept: Mapping[str, torch.Tensor],
    outputs: Mapping[str, float],
    task: DetectionTask,
) -> None:
    """Fit the layers of the pruned model, but for fc6, to the outputs of the dense ones, from the
    inputs that they get.

    Args:
        dense: what ``model`` was before it was pruned; both will see its proposals.
        kept, outputs: as in :func:`prune_channels`.
    """
    layers, originals = layers_to_prune(model), layers_to_prune(dense)
    fits = {name: DenseFit(layer, Sensitivity()) for name, layer in layers.items() if name != FC6}
    sample = Sample(
        {name: outputs[name] * len(task.batches) for name in fits},
        {name: wanted_samples(fit.layer, compact=False) for name, fit in fits.items()},
    )
    targets: dict[str, list[torch.Tensor]] = {name: [] for name in fits}

    def collect(name):
        layer, channels = originals[name], kept[name]
        weight, bias = weight_matrix(layer.weight)[channels], layer.bias[channels]

        def look(image, call, x):
            targets[name].append(F.linear(_patches(layer, x, sample, name, image), weight, bias))

        return look

    def add(name):
        def look(image, call, x):
            fits[name].add(_patches(layers[name], x, sample, name, image), targets[name][image])
            return True  # later layers are of no interest

        return look

    visits = {originals[name]: collect(name) for name in fits}
    for _ in tqdm(observe(dense, task.batches, task.forward, visits), "dense model"):
        pass
    for name, fit in tqdm(fits.items(), "fitting", unit="layer"):
        for _ in observe(model, task.batches, task.forward, {layers[name]: add(name)}):
            pass
        fit.solve()


def _patches(
    layer: nn.Module, x: torch.Tensor, sample: Sample, name: str, image: int
) -> torch.Tensor:
    """A sample of what a layer, which runs once in an image, sees in its input."""
    return take_patches(layer, x, sample(name, image, 0, count_patches(layer, x)))


def pruned_config(cfg: CfgNode, model: nn.Module, folder: str) -> CfgNode:
    """The config of the pruned model, whose weights are ``folder/model.pth``."""
    # The schedule of a compressed model, without a plan to compress anything.
    pruned = dense_config(compact_config(cfg, {}, folder))
    pruned.MODEL.VGG.CHANNELS = [conv.out_channels for conv in model.backbone.children()]
    pruned.MODEL.ROI_BOX_HEAD.FC_DIM = model.roi_heads.box_head.fc7.out_features
    return pruned


def prune_into(folder: str, args: argparse.Namespace) -> None:
    cfg = model_config(args)
    if cfg.MODEL.BACKBONE.NAME != "build_vgg_backbone" or cfg.MODEL.VGG.NORM:
        raise InputError(f"{args.config_file}: only build_vgg_backbone without NORM can be pruned")
    if cfg.MODEL.ROI_BOX_HEAD.NAME != "VGGBoxHead":
        raise InputError(f"{args.config_file}: MODEL.ROI_BOX_HEAD.NAME: only VGGBoxHead is pruned")
    model = load_model(cfg)
    if compact_layers(model):
        raise InputError(f"{args.config_file}: the model is compressed already: prune a dense one")
    task = DetectionTask.from_images(cfg, args.images, args.num_images, progress=True)
    survey = task.survey(model)
    dense = copy.deepcopy(model)
    before = survey.multiply_adds, count_parameters(model)
    rest = survey.multiply_adds - multiply_adds(model, survey.outputs)
    kept = prune_channels(model, survey.outputs, args.target_flops, rest, args.global_ranking)
    refit(model, dense, kept, survey.outputs, task)
    with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as file:
        file.write(pruned_config(cfg, model, args.output).dump())
    SparseDetCheckpointer(model, folder).save("model")

    after = multiply_adds(model, survey.outputs) + rest, count_parameters(model)
    units = ("multiply-adds (billions)", 1e9), ("parameters (millions)", 1e6)
    for (what, unit), was, now in zip(units, before, after):
        print(f"{what}: {was / unit:.2f} -> {now / unit:.2f} ({was / now:.2f}x)")


def main() -> None:
    args = parse_args()
    with new_folder(args.output) as folder:
        prune_into(folder, args)


if __name__ == "__main__":
    run(main)
