"""Make a trained detector smaller and faster in minutes: closed form, a few images, no training.

    sparsedet compress --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --target-params 12.4x --output compressed

The new folder --output gets config.yaml and model.pth, which every detectron2 tool takes after
``sparsedet.add_sparsedet_config(cfg)``; plan.yaml, what each layer became; report.md and
layers.png, what it cost.
To evaluate it, or to fine-tune it first:

    sparsedet evaluate --config-file compressed/config.yaml
    sparsedet train --config-file compressed/config.yaml

With several targets all of them are met. One flop is one multiply-add here. A plan can be edited
and applied again:

    sparsedet compress --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --plan compressed/plan.yaml --output again
"""

from __future__ import annotations

import argparse

from torch import nn

from ..api import compress_, detectron2_task
from ..compress import even_plan, plan_to_entries
from ..compress.profile import SEARCHED_PATTERNS
from ..detection.load import load_model
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
    parser.add_argument(
        "--uniform",
        type=factor,
        metavar="FACTORx",
        help="make every layer smaller by one factor instead",
    )
    for kind in ("include", "exclude"):
        parser.add_argument(
            f"--{kind}", nargs="+", metavar="NAME", help="layers by name, or patterns of names"
        )
    parser.add_argument(
        "--patterns",
        nargs="+",
        choices=SEARCHED_PATTERNS,
        help="sparse kernels among which to choose (default: all; --uniform takes the first, by "
        "default checkerboard)",
    )
    parser.add_argument(
        "--no-slower",
        action="store_true",
        help="measure, and let no layer become slower on this machine (always so with "
        "--target-latency)",
    )
    parser.add_argument(
        "--weights-alone",
        action="store_true",
        help="do not calibrate; images only serve to plan (for comparison)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args()
    args.targets = {target: getattr(args, f"target_{target}") for target in TARGETS}
    given = [target for target, value in args.targets.items() if value is not None]
    if bool(given) + bool(args.plan) + bool(args.uniform) != 1:
        parser.error("give a target (such as --target-params 12.4x) or a --plan, or --uniform")
    if not given and (args.include or args.exclude or args.no_slower):
        parser.error("--include, --exclude and --no-slower are for targets")
    if args.num_images < 1:
        parser.error("--num-images must be at least 1")
    return args


def uniform(model: nn.Module, args: argparse.Namespace) -> dict[str, dict]:
    """The plan of --uniform, but for the layers that give the answers."""
    answers = detectron2_task(model)([[]]).answers(model)
    pattern = args.patterns[0] if args.patterns else "checkerboard"
    return plan_to_entries(even_plan(model, args.uniform, pattern, answers))


def main() -> None:
    """The command."""
    args = parse_args()
    with new_folder(args.output) as folder:  # it can be written, which is known at once
        model = load_model(model_config(args))
        result = compress_(
            model,
            images=args.images,
            num_images=args.num_images,
            plan=uniform(model, args) if args.uniform else args.plan,
            **args.targets,
            include=args.include or ["*"],
            exclude=args.exclude or [],
            patterns=args.patterns or SEARCHED_PATTERNS,
            no_slower=args.no_slower,
            calibrate=not args.weights_alone,
            progress=True,
        )
        result.write(folder, args.output)
    print(result)
    print(f"{args.output}: see report.md there")
