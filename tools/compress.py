#!/usr/bin/env python
"""Make a trained detector smaller and faster in minutes: closed form, a few images, no training.

    python tools/compress.py --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --target-params 12.4x --output compressed

The new folder --output gets config.yaml and model.pth, which every detectron2 tool takes after
``import sparsedet``; plan.yaml, what each layer became; report.md and layers.png, what it cost.
To evaluate it, or to fine-tune it first:

    python tools/train_net.py --config-file compressed/config.yaml --eval-only
    python tools/train_net.py --config-file compressed/config.yaml

With several targets all of them are met. A plan can be edited and applied again:

    python tools/compress.py --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --plan compressed/plan.yaml --output again
"""

from __future__ import annotations

import argparse
import math

import yaml
from torch import nn

from sparsedet import load_config
from sparsedet.compress import Plan, resolve_plan
from sparsedet.compress.profile import PATTERNS
from sparsedet.engine import run
from sparsedet.engine.calibration import load_images
from sparsedet.engine.compression import compress, load_model, plan_compression
from sparsedet.errors import InputError
from sparsedet.files import new_folder

TARGETS = ("params", "flops", "latency")


def factor(text: str) -> float:
    """Of ``12.4x`` or ``12.4``."""
    value = float(text.removesuffix("x"))
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a factor of at least 1")
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the dense model")
    parser.add_argument("--weights", metavar="FILE", help="default: MODEL.WEIGHTS of the config")
    parser.add_argument(
        "--images",
        metavar="DIR|GLOB",
        help="images like those that the model will see (default: those of DATASETS.TRAIN)",
    )
    parser.add_argument(
        "--num-images", type=int, default=100, metavar="N", help="how many to take (default: 100)"
    )
    for target in TARGETS:
        parser.add_argument(
            f"--target-{target}",
            type=factor,
            metavar="FACTORx",
            help="milliseconds on this machine" if target == "latency" else None,
        )
    parser.add_argument("--plan", metavar="FILE", help="apply this plan instead of making one")
    for kind in ("include", "exclude"):
        parser.add_argument(
            f"--{kind}", nargs="+", metavar="NAME", help="layers by name, or patterns of names"
        )
    parser.add_argument(
        "--patterns",
        nargs="+",
        choices=PATTERNS,
        default=PATTERNS,
        help="sparse kernels among which to choose (default: all)",
    )
    parser.add_argument(
        "--weights-alone",
        action="store_true",
        help="do not calibrate; images only serve to plan (for comparison)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    args.targets = {t: getattr(args, f"target_{t}") for t in TARGETS}
    args.targets = {t: value for t, value in args.targets.items() if value is not None}
    if bool(args.targets) == bool(args.plan):
        parser.error("give a target (such as --target-params 12.4x) or a --plan")
    if args.plan and (args.include or args.exclude):
        parser.error("--include and --exclude are for targets; a --plan names its layers itself")
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    return args


def read_plan(path: str, model: nn.Module) -> Plan:
    try:
        with open(path, encoding="utf-8") as file:
            entries = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--plan {path}: cannot be read: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"--plan {path}: not a mapping of layer names")
    return resolve_plan(model, entries)


def compress_into(folder: str, args: argparse.Namespace) -> None:
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    cfg = load_config(args.config_file, [*args.opts, *weights])
    model = load_model(cfg)
    plan = read_plan(args.plan, model) if args.plan else None
    images = load_images(cfg, args.images, args.num_images)
    if plan is None:
        plan = plan_compression(
            model, images, args.targets, args.include or ["*"], args.exclude or [], args.patterns
        )
    calibrate = not args.weights_alone
    report, times = compress(model, cfg, plan, images, folder, args.output, calibrate)
    for what, (before, after) in {
        "parameters (millions)": [count / 1e6 for count in report.parameters],
        "multiply-adds (billions)": [count / 1e9 for count in report.multiply_adds],
        "ms per image": times,
    }.items():
        print(f"{what}: {before:.2f} -> {after:.2f} ({before / after:.2f}x)")


def main() -> None:
    args = parse_args()
    with new_folder(args.output) as folder:
        compress_into(folder, args)
    print(f"{args.output}: see report.md there")


if __name__ == "__main__":
    run(main)
