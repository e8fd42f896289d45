"""Make a trained detector smaller and faster in minutes: closed form, a few images, no training.

    sparsedet compress --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --target-params 12.4x --output compressed

The new folder --output gets config.yaml and model.pth, which every detectron2 tool takes after
``sparsedet.add_sparsedet_config(cfg)``; plan.yaml, what each layer became; report.html, one page
that needs nothing beside it, report.md and layers.png, what it cost.
To evaluate it, or to fine-tune it first:

    sparsedet evaluate --config-file compressed/config.yaml
    sparsedet train --config-file compressed/config.yaml

With several targets all of them are met, at the image size and with the proposals of the test,
though --min-size may calibrate on smaller images. One flop is one multiply-add here. With --engine
time is measured in the engine in which the model will run: each layer exported by itself, and the
whole model. A plan can be edited and applied again:

    sparsedet compress --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --plan compressed/plan.yaml --output again

Or name the accuracy that may be lost. At most six candidates are fitted and evaluated; the best is
in DIR/best, the steps are in DIR/search.md, and the same command goes on where one was stopped:

    sparsedet compress --config-file dense/config.yaml --weights dense/model_final.pth \\
        --images photos --max-drop 1.0 --metric AP50 --on my_test --output compressed

--finetune goes on with sparsedet train, and --export with sparsedet export: from a checkpoint to a
file that runs anywhere in one command.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil

import torch
from detectron2.config import CfgNode
from torch import nn

from ..api import choose_task, compress_, detectron2_task
from ..compress import even_plan, plan_to_entries
from ..compress.profile import SEARCHED_PATTERNS
from ..detection.config import load_config
from ..detection.load import load_model
from ..errors import InputError
from ..exporting.api import export
from ..exporting.engine import engine_of
from ..exporting.exporter import PRECISIONS
from ..files import locked, new_folder
from ..max_drop import Search, find_metric, search_smallest
from ..memory import keep_freed_memory
from ..training.setup import check_presence
from .arguments import positive
from .model_arguments import calibration_parser, factor, model_config
from .train import train, trainer_class

TARGETS = ("params", "flops", "latency")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def parse_args() -> argparse.Namespace:
    parser = calibration_parser(__doc__)
    parser.add_argument(
        "--min-size",
        type=positive,
        metavar="PIXELS",
        help="shorter side of the images in calibration; targets count at INPUT.MIN_SIZE_TEST, "
        "which is also the default",
    )
    for target in TARGETS:
        parser.add_argument(
            f"--target-{target}",
            type=factor,
            metavar="FACTORx",
            help="milliseconds on this machine" if target == "latency" else None,
        )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="find the smallest that loses no more",
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="what may drop: AP, AP50, segm/AP, ... (default: AP50)"
    )
    parser.add_argument(
        "--on", metavar="DATASET", help="where it is evaluated (default: the first DATASETS.TEST)"
    )
    parser.add_argument(
        "--for",
        dest="unit",
        choices=TARGETS,
        help="what is to shrink most under --max-drop (default: params)",
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
        "--engine",
        default="eager",
        metavar="NAME[:PRECISION]",
        help="what runs model and layers where they are timed: eager (default), which is PyTorch, "
        "onnxruntime, openvino or openvino:bf16",
    )
    parser.add_argument(
        "--width",
        action="store_true",
        help="also leave out channels that one layer alone reads",
    )
    parser.add_argument(
        "--weights-alone",
        action="store_true",
        help="do not calibrate; images only serve to plan (for comparison)",
    )
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="then train it, as its config says",
    )
    parser.add_argument(
        "--export", choices=SUFFIXES, help="then write a file that runs without torch, beside it"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of --export (default: f32)")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args()
    args.targets = {target: getattr(args, f"target_{target}") for target in TARGETS}
    given = [target for target, value in args.targets.items() if value is not None]
    ways = [bool(given), bool(args.plan), bool(args.uniform), args.max_drop is not None]
    if sum(ways) != 1:
        parser.error(
            "give one of targets (such as --target-params 12.4x), --uniform, --plan and --max-drop"
        )
    if args.max_drop is None and (args.metric or args.on or args.unit):
        parser.error("--metric, --on and --for are for --max-drop")
    if not given and (args.include or args.exclude or args.no_slower or args.width):
        parser.error("--include, --exclude, --no-slower and --width are for targets")
    if args.max_drop is not None and not 0 <= args.max_drop < float("inf"):
        parser.error("--max-drop must be 0 or more points")
    if args.max_drop is not None and args.weights_alone:
        parser.error("--weights-alone is for targets, --uniform or a --plan")
    if args.precision and not args.export:
        parser.error("--precision is for --export")
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
    keep_freed_memory()
    folder = args.output if args.max_drop is None else search(args)
    if args.max_drop is None:
        compress(args)
    if args.finetune:
        train(argparse.Namespace(config_file=config_of(folder), opts=[], eval_only=0, resume=True))
    if args.export:
        export_from(folder, args)


def compress(args: argparse.Namespace) -> None:
    """To the targets or the plan, into --output."""
    with new_folder(args.output) as folder:  # it can be written, which is known at once
        model = load_model(model_config(args))
        result = compress_(
            model,
            images=args.images,
            num_images=args.num_images,
            min_size=args.min_size,
            plan=uniform(model, args) if args.uniform else args.plan,
            **args.targets,
            include=args.include or ["*"],
            exclude=args.exclude or [],
            patterns=args.patterns or SEARCHED_PATTERNS,
            no_slower=args.no_slower,
            width=args.width,
            calibrate=not args.weights_alone,
            engine=args.engine,
            progress=True,
        )
        result.write(folder, args.output)
    print(result)
    print(f"{args.output}: see report.md there")


def config_of(folder: str) -> str:
    """Where a compression left its config, which is of the kind that the dense model's was."""
    lazy = os.path.join(folder, "config.py")
    return lazy if os.path.isfile(lazy) else os.path.join(folder, "config.yaml")


def export_from(folder: str, args: argparse.Namespace) -> None:
    """Export what is in ``folder``, fine-tuned if that was asked."""
    cfg = load_config(config_of(folder), ["MODEL.DEVICE", "cpu"])
    if args.finetune:
        cfg.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    path = os.path.join(folder, f"model{SUFFIXES[args.export]}")
    precision = args.precision or "f32"
    apart = export(load_model(cfg), path, precision=precision, images=args.images)
    print(f"{path}: beside PyTorch, on one picture: {apart}")


def search(args: argparse.Namespace) -> str:
    """Find the smallest model within --max-drop: its folder."""
    cfg = model_config(args, *(["DATASETS.TEST", repr((args.on,))] if args.on else []))
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty; name where to evaluate with --on DATASET")
    cfg.DATASETS.TEST = cfg.DATASETS.TEST[:1]
    check_presence(cfg.DATASETS.TEST[0])
    model = load_model(cfg)
    patterns = args.patterns or SEARCHED_PATTERNS
    settings = {
        "max_drop": args.max_drop,
        "metric": args.metric or "AP50",
        "on": cfg.DATASETS.TEST[0],
        "for": args.unit or "params",
        "images": args.images,
        "num_images": args.num_images,
        "min_size": args.min_size,
        "engine": args.engine,
        "patterns": list(patterns),
        # What lies at a path may be another model, or the same one tested in another way.
        "model": fingerprint(model, cfg),
    }
    with locked(args.output):
        found = Search(args.output, settings)

        def score(candidate: nn.Module) -> float:
            return find_metric(trainer_class(cfg).test(cfg, candidate), settings["metric"])

        try:
            task = choose_task(model, args.images, args.num_images, None, None, True, args.min_size)
            step = search_smallest(
                model,
                task,
                settings["for"],
                score,
                found,
                patterns=patterns,
                engine=engine_of(args.engine, model),
                progress=True,
            )
        finally:
            if found.dense is None:  # nothing is known yet that another run could go on from
                shutil.rmtree(args.output)
    print(found)
    print(f"{found.best}: {step.factor:.2f}x in {settings['for']}; see report.md there")
    return found.best


def fingerprint(model: nn.Module, cfg: CfgNode) -> str:
    """Of the weights of a model and its config."""
    digest = hashlib.sha256(cfg.dump().encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
