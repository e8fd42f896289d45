#!/usr/bin/env python
"""Prune the channels of a VGG detector's backbone, to compare with: the library torch-pruning.

    python tools/prune.py --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --target-flops 3x --output pruned

--target-flops is a factor of the multiply-adds of the backbone. Nothing else is pruned, and neither
are the channels that the heads read (conv5_3's). Of every other convolution torch-pruning removes
the same share of channels, those of the least norm. The convolutions that are left are then fitted
to the dense ones' outputs on images, one after another (He et al., arXiv 1707.06168), as
tools/compress.py does it, for a fair comparison.

The new folder --output gets config.yaml and model.pth, plain detectron2 after ``import sparsedet``,
with the schedule of fine-tuning that tools/compress.py sets:

    python tools/train_net.py --config-file pruned/config.yaml
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from sparsedet.analysis import count_parameters
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.compress.fit import PATCHES, DenseFit
from sparsedet.compress.observe import observe
from sparsedet.compress.patches import count_patches, take_patches, weight_matrix
from sparsedet.compress.plan import compact_layers
from sparsedet.compress.survey import Sample, Survey
from sparsedet.engine import run
from sparsedet.engine.arguments import calibration_parser, factor, model_config
from sparsedet.engine.calibration import CalibrationImage, load_images, run_detector
from sparsedet.engine.compression import compressed_config, load_model
from sparsedet.errors import InputError
from sparsedet.files import new_folder
from sparsedet.modeling import VGG, dense_config

STEPS = 100
"""Steps from all channels to none; as many are taken as the target needs."""

MULTIPLE = 8
"""Numbers of channels stay multiples of it, for speed."""


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
    parser.add_argument(
        "--target-flops",
        type=factor,
        required=True,
        metavar="FACTORx",
        help="by which the backbone's multiply-adds are to shrink",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    if not args.target_flops > 1:
        parser.error("--target-flops must be above 1")
    return args


def multiply_adds(vgg: VGG, outputs: Mapping[str, float]) -> float:
    return sum(outputs[name] * conv.weight.numel() for name, conv in vgg.named_children())


def prune_channels(
    vgg: VGG, outputs: Mapping[str, float], factor: float
) -> dict[str, torch.Tensor]:
    """Remove channels until the multiply-adds of ``vgg`` are ``factor`` times fewer.

    Args:
        outputs: how many positions the output of each convolution has.

    Returns:
        for each convolution, the numbers of the channels that are left

    Raises:
        InputError: torch-pruning is not installed, or the factor is out of reach.
    """
    try:
        import torch_pruning
    except ImportError:
        raise InputError("torch-pruning is not installed: pip install torch-pruning") from None
    convs = {conv: name for name, conv in vgg.named_children()}
    features = {vgg.stages[int(name[-1]) - 1][-1] for name in vgg.output_shape()}
    vgg.requires_grad_(True)  # by which it finds out what is connected with what
    pruner = torch_pruning.pruner.BasePruner(
        vgg,
        torch.zeros(1, 3, 64, 64, device=next(vgg.parameters()).device),
        torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        round_to=MULTIPLE,
        ignored_layers=[getattr(vgg, name) for name in features],
    )
    kept = {name: torch.arange(conv.out_channels) for conv, name in convs.items()}
    dense = multiply_adds(vgg, outputs)
    while dense < factor * multiply_adds(vgg, outputs):
        if pruner.current_step == STEPS:
            most = dense / multiply_adds(vgg, outputs)
            raise InputError(f"--target-flops {factor:g}x: out of reach; at most {most:.1f}x")
        for group in pruner.step(interactive=True):
            name, removed = convs[group[0].dep.target.module], set(group[0].idxs)
            left = [channel for i, channel in enumerate(kept[name].tolist()) if i not in removed]
            kept[name] = torch.tensor(left)
            group.prune()
    return kept


@torch.no_grad()
def refit(
    model: nn.Module,
    dense: VGG,
    kept: Mapping[str, torch.Tensor],
    outputs: Mapping[str, float],
    images: Sequence[CalibrationImage],
) -> None:
    """Fit the pruned convolutions to the outputs of the dense ones, from the inputs that they get.

    Args:
        dense: what the backbone of ``model`` was before it was pruned.
        kept, outputs: as in :func:`prune_channels`.
    """
    sample = Sample(
        {name: count * len(images) for name, count in outputs.items()},
        {name: PATCHES * conv.weight[0].numel() for name, conv in dense.named_children()},
    )
    for name, conv in tqdm(list(model.backbone.named_children()), "fitting", unit="layer"):
        original = getattr(dense, name)
        weight, bias = weight_matrix(original.weight)[kept[name]], original.bias[kept[name]]
        targets = [F.linear(x, weight, bias) for x in _patches(model, dense, name, sample, images)]
        fit = DenseFit(conv)
        for x, y in zip(_patches(model, model.backbone, name, sample, images), targets):
            fit.add(x, y)
        fit.solve()


def _patches(
    model: nn.Module, vgg: VGG, name: str, sample: Sample, images: Sequence[CalibrationImage]
) -> Iterator[torch.Tensor]:
    """Image by image, a sample of what a convolution of ``vgg`` sees."""
    conv = getattr(vgg, name)
    patches = []

    def run_backbone(vgg, image):
        vgg(model.preprocess_image(image.inputs).tensor)

    def look(image, call, x):
        positions = sample(name, image, call, count_patches(conv, x))
        patches.append(take_patches(conv, x, positions))
        return True  # later layers are of no interest

    for _ in observe(vgg, images, run_backbone, {conv: look}):
        yield patches.pop()


def pruned_config(cfg: CfgNode, vgg: VGG, folder: str) -> CfgNode:
    """The config of the pruned model, whose weights are ``folder/model.pth``."""
    # The schedule of a compressed model, without a plan to compress anything.
    pruned = dense_config(compressed_config(cfg, {}, folder))
    pruned.MODEL.VGG.CHANNELS = [conv.out_channels for conv in vgg.children()]
    return pruned


def prune_into(folder: str, args: argparse.Namespace) -> None:
    cfg = model_config(args)
    if cfg.MODEL.BACKBONE.NAME != "build_vgg_backbone" or cfg.MODEL.VGG.NORM:
        raise InputError(f"{args.config_file}: only build_vgg_backbone without NORM can be pruned")
    model = load_model(cfg)
    if compact_layers(model):
        raise InputError(f"{args.config_file}: the model is compressed already: prune a dense one")
    vgg = model.backbone
    images = load_images(cfg, args.images, args.num_images)
    survey = Survey(model, dict(vgg.named_children()), images, run_detector)
    dense = copy.deepcopy(vgg)
    parameters = count_parameters(model)
    kept = prune_channels(vgg, survey.outputs, args.target_flops)
    refit(model, dense, kept, survey.outputs, images)
    with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as file:
        file.write(pruned_config(cfg, vgg, args.output).dump())
    SparseDetCheckpointer(model, folder).save("model")

    work = [multiply_adds(net, survey.outputs) for net in (dense, vgg)]
    rest = survey.multiply_adds - work[0]
    for what, before, after in (
        ("multiply-adds of the backbone (billions)", *(count / 1e9 for count in work)),
        ("multiply-adds of all (billions)", *((rest + count) / 1e9 for count in work)),
        ("parameters of all (millions)", parameters / 1e6, count_parameters(model) / 1e6),
    ):
        print(f"{what}: {before:.2f} -> {after:.2f} ({before / after:.2f}x)")


def main() -> None:
    args = parse_args()
    with new_folder(args.output) as folder:
        prune_into(folder, args)


if __name__ == "__main__":
    run(main)
