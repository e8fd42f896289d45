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

import yaml
from torch import nn

from ..compress import Plan, resolve_plan
from ..compress.profile import PATTERNS
from ..detection.calibration import load_images
from ..detection.compression import answer_metrics, compress, load_model, plan_compression
from ..errors import InputError
from ..files import new_folder
from .model_arguments import calibration_parser, factor, model_config

TARGETS = ("params", "flops", "latency")


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
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
    cfg = model_config(args)
    model = load_model(cfg)
    plan = read_plan(args.plan, model) if args.plan else None
    images = load_images(cfg, args.images, args.num_images)
    metrics = None if plan and args.weights_alone else answer_metrics(model, images)
    if plan is None:
        included, excluded = args.include or ["*"], args.exclude or []
        plan = plan_compression(
            model, images, metrics, args.targets, included, excluded, args.patterns
        )
    if args.weights_alone:
        metrics = None
    report, times = compress(model, cfg, plan, images, metrics, folder, args.output)
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
