"""Import weights for a detector's backbone: of a VGG, or of a classifier that was trained here.

    sparsedet convert vgg16-397923af.pth vgg16.pth
    sparsedet convert classifier/model_final.pth backbone.pth \\
        --detector configs/VOC-Detection/faster_rcnn_VGG_16.yaml

The first takes torchvision's and Caffe-style .pth, Keras' .h5 and ONNX files. The second takes a
checkpoint of sparsedet classify or of what compress made of it, a VGG or a ResNet of torchvision;
its config.yaml lies beside it, or is --config-file. With --detector, which a compact one needs,
backbone.yaml is that detector's config with this backbone, its plan and its preprocessing.
"""

from __future__ import annotations

import argparse
import os

import torch

from ..checkpoint import PREPROCESSING, ImportedVGG, import_vgg
from ..checkpoint.preprocessing import config_lines
from ..classification.backbones import classifier_backbone
from ..detection.config import load_config
from ..detection.load import load_model
from ..errors import InputError
from ..files import replacing
from ..modeling import ImageClassifier, is_classifier


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


def convert_classifier(args: argparse.Namespace, config: str) -> None:
    """Write the backbone of a classifier, and the config of a detector that begins with it."""
    model = load_model(config, args.input)
    if not isinstance(model, ImageClassifier):
        raise InputError(f"{config}: not the config of a classifier")
    backbone = classifier_backbone(model, model.cfg.MODEL.SPARSE_FUSION.PLAN)
    if backbone.plan and not args.detector:
        raise InputError(
            f"{args.input}: has compact layers, which a config must describe: give the config of a "
            "dense detector by --detector"
        )
    written = args.output
    if args.detector:
        path = f"{args.output.removesuffix('.pth')}.yaml"
        cfg = backbone.detector_config(load_config(args.detector), args.output)
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(cfg.dump())
        written = f"{args.output}, and {path}, to be trained by sparsedet train"
    with replacing(args.output) as temporary:
        torch.save(backbone.checkpoint(), temporary)
    print(f"{args.input}: {type(model.network).__name__}, {len(backbone.plan)} compact layers")
    print(f"wrote {written}")
    if not args.detector:
        keys = [f"MODEL.{key}: {value!r}" for key, value in backbone.keys.items()]
        print("in the config:", f"MODEL.WEIGHTS: {args.output}", *keys, sep="\n")
        print(*config_lines(backbone.preprocessing), sep="\n")


def classifier_config(args: argparse.Namespace) -> str | None:
    """The config of the classifier whose checkpoint is to be converted, if it is one."""
    if args.config_file:
        return args.config_file
    beside = os.path.join(os.path.dirname(args.input), "config.yaml")
    return beside if os.path.isfile(beside) and is_classifier(load_config(beside)) else None


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
    parser.add_argument("--config-file", metavar="FILE", help="of a classifier")
    parser.add_argument("--detector", metavar="FILE", help="config of a dense detector")
    args = parser.parse_args()
    if not args.output.endswith(".pth"):
        raise InputError(f"{args.output}: the checkpoint's name must end in .pth")
    config = classifier_config(args)
    if config:
        convert_classifier(args, config)
        return
    vgg = import_vgg(args.input, args.preprocessing)
    with replacing(args.output) as temporary:
        torch.save(vgg.checkpoint(), temporary)
    print(describe(vgg, args.input, args.output))
