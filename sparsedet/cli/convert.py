"""Import VGG weights (torchvision or Caffe-style .pth, Keras .h5, ONNX) for detectron2.

Usage: sparsedet convert vgg16-397923af.pth vgg16.pth
"""

from __future__ import annotations

import argparse

import torch

from ..checkpoint import PREPROCESSING, ImportedVGG, import_vgg
from ..checkpoint.preprocessing import config_lines
from ..errors import InputError
from ..files import replacing


def describe(vgg: ImportedVGG, source: str, output: str) -> str:
    """What was found, and the config keys that use it."""
    names = sorted({key.split(".")[0] for key in vgg.model})
    linears = [name for name in names if name.startswith("fc")]
    lines = [
        f"{source}: {vgg.format}, VGG-{vgg.depth}{' with batch norm' if vgg.norm else ''}, "
        f"{len(names) - len(linears)} convolutions, {' and '.join(linears) or 'no fc6, fc7'}; "
        f"{vgg.preprocessing} preprocessing"
    ]
    lines += [f"not used: {layer}" for layer in vgg.skipped]
    lines += [
        f"wrote {output}; in the config:",
        f"MODEL.WEIGHTS: {output}",
        f"MODEL.VGG.DEPTH: {vgg.depth}",
        f"MODEL.VGG.NORM: {'FrozenBN' if vgg.norm else repr('')}",
        *config_lines(vgg.checkpoint()["preprocessing"]),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="the .pth, .h5 or .onnx file")
    parser.add_argument("output", help="the checkpoint to write, a .pth file")
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSING,
        help="the images that the weights were trained on, where they do not tell",
    )
    args = parser.parse_args()
    if not args.output.endswith(".pth"):
        raise InputError(f"{args.output}: the checkpoint's name must end in .pth")
    vgg = import_vgg(args.input, args.preprocessing)
    with replacing(args.output) as temporary:
        torch.save(vgg.checkpoint(), temporary)
    print(describe(vgg, args.input, args.output))
