"""Train or evaluate a classifier of images, any of torchvision or timm.

    sparsedet classify --model vgg16 --pretrained --data imagenet --eval-only OUTPUT_DIR out/vgg16
    sparsedet classify --model resnet50 --data flowers --num-gpus 2 OUTPUT_DIR out/flowers
    sparsedet classify --config-file out/flowers/config.yaml --resume

--data is a folder with train/CLASS/image.jpg and val/CLASS/image.jpg, or the name of a data set of
torchvision with --root. --pretrained begins with the weights that the library publishes, --weights
with those of a file; they are written to OUTPUT_DIR/pretrained.pth. OUTPUT_DIR/config.yaml is the
config that all this makes. Every other command takes it, as that of a detector: compress, export,
evaluate, and this one to fine-tune what compress wrote:

    sparsedet compress --config-file out/vgg16/config.yaml --weights out/vgg16/pretrained.pth \\
        --uniform 3x --output out/vgg16_3x
    sparsedet classify --config-file out/vgg16_3x/config.yaml --num-gpus 8

KEY VALUE at the end are config keys, such as SOLVER.MAX_ITER, SOLVER.AMP.ENABLED and SEED.
docs/classification.md has the commands for ImageNet.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
import yaml

from ..classification.pretrained import from_file, from_library
from ..data.class_folders import find_splits
from ..data.class_order import dataset_classes
from ..data.entries import parse_entry
from ..detection.config import load_config
from ..errors import InputError
from ..files import replacing
from ..model_zoo import get_config_file
from ..modeling.networks import build_network
from .train import parse, start, training_parser

TESTS = ("val", "test", "valid", "validation")  # splits to test on, the first that is there


def parse_args() -> argparse.Namespace:
    parser = training_parser(__doc__)
    parser.add_argument("--model", metavar="NAME", help="such as resnet50, or timm:NAME")
    parser.add_argument("--data", metavar="DIR|NAME", help="a folder, or torchvision's name")
    parser.add_argument("--root", metavar="DIR", help="where torchvision's data set is")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--pretrained", action="store_true", help="with the library's weights")
    begin.add_argument("--weights", metavar="FILE", help="with these (default: random ones)")
    args = parse(parser)
    if bool(args.config_file) == bool(args.model):
        parser.error("give --model and --data, or the --config-file that an earlier run wrote")
    if bool(args.model) != bool(args.data):
        parser.error("--model and --data go together; a --config-file has its own")
    return args


def main() -> None:
    """The command."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.model:
            args.config_file = os.path.join(folder, "config.yaml")
            with open(args.config_file, "w", encoding="utf-8") as file:
                yaml.safe_dump(model_values(args), file)
        if (args.pretrained or args.weights) and not args.resume:
            args.opts += write_pretrained(args)
        start(args)


def model_values(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say, in the form of a config file."""
    entries = data_entries(args)
    train, test = entries
    classes = parse_entry(train, entries[train], key="--data: ").classes
    if not classes:
        raise InputError(f"--data {args.data}: no such folder, nor a data set with a --root")
    return {
        "_BASE_": get_config_file("Base-Classifier.yaml"),
        "MODEL": {"CLASSIFIER": {"NAME": args.model, "NUM_CLASSES": len(classes)}},
        "DATASETS": {"TRAIN": [train], "TEST": [test], "REGISTER": entries},
    }


def data_entries(args: argparse.Namespace) -> Mapping[str, dict[str, str]]:
    """Of DATASETS.REGISTER: what to train on, and what to test on."""
    if args.root:
        root = os.path.abspath(args.root)
        same = {"format": "torchvision", "dataset": args.data, "root": root}
        name, splits = args.data.lower(), ["train", "test"]
    else:
        root = os.path.abspath(os.path.expanduser(args.data))
        if not os.path.isdir(root):
            raise InputError(
                f"--data {args.data}: no such folder; a data set of torchvision needs --root"
            )
        same = {"format": "folder", "root": root}
        name, splits = os.path.basename(root), find_splits(root)
    test = next((split for split in TESTS if split in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"--data {args.data}: has the splits {', '.join(splits) or 'none'}; it needs folders "
            "train and val, each with a folder for each class"
        )
    return {f"{name}_{split}": {**same, "split": split} for split in ("train", test)}


def write_pretrained(args: argparse.Namespace) -> list[str]:
    """Write OUTPUT_DIR/pretrained.pth; the config keys that use it, as KEY VALUE ..."""
    cfg = load_config(args.config_file, args.opts)
    keys = cfg.MODEL.CLASSIFIER
    if args.pretrained:
        found = from_library(keys.NAME)
    else:
        found = from_file(args.weights, build_network(keys.NAME, keys.NUM_CLASSES))
    path = os.path.join(cfg.OUTPUT_DIR, "pretrained.pth")
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        with replacing(path) as temporary:
            torch.save(found.checkpoint(dataset_classes(cfg.DATASETS.TRAIN[0])), temporary)
    seen = {key: str(value) for key, value in found.preprocessing.items()}
    opts = ["MODEL.WEIGHTS", path, "INPUT.FORMAT", seen["FORMAT"]]
    return [*opts, *(v for k in ("PIXEL_MEAN", "PIXEL_STD") for v in (f"MODEL.{k}", seen[k]))]
