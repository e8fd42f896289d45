"""Time detectors side by side: each of any number of them in any number of engines.

    sparsedet benchmark --config-file dense.yaml sparse.yaml --weights dense.pth sparse.pth \\
        --engine eager optimized onnxruntime onnxruntime:int8 --against first --json rows.json

A config is a file, a name in detectron2's model zoo (COCO-Detection/faster_rcnn_R_50_C4_1x.yaml),
or one of torchvision's detectors, for eager alone and with random weights:

    torchvision:fasterrcnn_mobilenet_v3_large_fpn
    torchvision:fasterrcnn_mobilenet_v3_large_320_fpn   resizes every image to 320 pixels, as ever

An engine is NAME or NAME:PRECISION (default f32):

    eager         as detectron2 runs it
    optimized     sparsedet.engine.optimize_for_inference; also bf16
    onnxruntime   the exported file, on the CPU; also f16 (weights) and int8
    openvino      likewise; also bf16, which computes so from the f16 file

All run in one process, in turns, on the same images of noise, which already have the model's size;
a time is from pixels to detections: preprocessing, trunk, proposals, RoI pooling, heads and
suppression. One of --size, --proposals, --batch and --threads may have several values, which are
gone through one after another: so cost is seen to grow.

Every engine gives exactly --proposals boxes of each image to the RoI heads, whatever the weights:
in PyTorch the proposal generator runs as ever, and its boxes are then replaced by fixed ones; an
exported file takes its best anchors as they are, and suppresses none. Exported files take the
images of a batch one by one.

Multiply-adds are those for one image, one of which is one flop here. File size is that of the
exported file, or in PyTorch of the parameters and buffers; the time to load is of an exported file.
Peak memory is that of a process of its own which loads the model and runs it once. Beside each
stage stands the time below which this machine cannot take it, from its best rates in a matrix
product and a copy.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
from itertools import product, zip_longest

import torch

from ..benchmark.cases import EXPORTED, IN_PYTORCH, make_cases
from ..benchmark.models import TORCHVISION, Setting
from ..benchmark.side_by_side import benchmark
from ..errors import InputError
from ..exporting.engine import parse_engine
from ..files import replacing
from ..memory import keep_freed_memory
from ..reports.benchmark import benchmark_table, plot_benchmark
from ..timing import environment
from .arguments import positive, threads

SEVERAL = ("size", "proposals", "batch", "threads")  # of which one may have several values


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", nargs="+", required=True, metavar="CONFIG")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE",
        help='of each config, in order; "" for random ones (default: its MODEL.WEIGHTS)',
    )
    parser.add_argument("--engine", nargs="+", default=["eager"], metavar="NAME[:PRECISION]")
    for name, parse, default, metavar in (
        ("size", _size, (600, 1000), "HEIGHTxWIDTH"),
        ("proposals", positive, 300, "N"),
        ("batch", positive, 1, "N"),
        ("threads", threads, torch.get_num_threads(), "N"),
    ):
        parser.add_argument(f"--{name}", nargs="+", type=parse, default=[default], metavar=metavar)
    parser.add_argument("--rounds", type=positive, default=10, metavar="N", help="timed ones")
    parser.add_argument(
        "--against", metavar="CONFIG", help="one of the configs, or first: print ratios to it"
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    parser.add_argument("--plot", metavar="FILE", help="draw them, as PNG")
    args = parser.parse_args()
    if args.against == "first":
        args.against = args.config_file[0]
    if args.against and args.against not in args.config_file:
        raise InputError(f"--against {args.against}: not one of the configs that are timed")
    if len(args.weights) > len(args.config_file):
        raise InputError(
            f"{len(args.weights)} --weights for {len(args.config_file)} --config-file: one for each"
        )
    several = [f"--{name}" for name in SEVERAL if len(getattr(args, name)) > 1]
    if len(several) > 1:
        raise InputError(f"{', '.join(several)}: only one of them can have several values")
    for path in filter(None, (args.json, args.plot)):
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise InputError(f"{path}: no such folder")
    args.engine = [_installed(engine) for engine in args.engine]
    for config in args.config_file:
        if config.startswith(TORCHVISION) and args.engine != [("eager", "f32")]:
            raise InputError(f"{config}: only --engine eager runs it")
    return args


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return positive(height), positive(width)


def _installed(text: str) -> tuple[str, str]:
    """Name and precision of an engine that can be used."""
    name, precision = parse_engine(text, {**IN_PYTORCH, **EXPORTED})
    if name in EXPORTED:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"--engine {text}: not installed; pip install {name}") from None
    return name, precision


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    detectors = list(zip_longest(args.config_file, args.weights))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size, *others in product(args.size, args.proposals, args.batch, args.threads):
            setting = Setting(*size, *others)
            torch.set_num_threads(setting.threads)
            rows += benchmark(
                make_cases(detectors, args.engine, setting, folder),
                setting.images(),
                setting.proposals,
                args.rounds,
            )
    if args.json:
        with replacing(args.json) as temporary, open(temporary, "w") as file:
            json.dump(rows, file, indent=2)
            file.write("\n")
    if args.plot:
        with replacing(args.plot) as temporary:
            plot_benchmark(rows, temporary)
    print(benchmark_table(rows, args.against))
    facts = {**environment(), "threads": ", ".join(map(str, args.threads))}
    for name in {name for name, _ in args.engine} & EXPORTED.keys():
        facts[name] = importlib.metadata.version(name)
    print("\n" + "; ".join(f"{key} {value}" for key, value in facts.items()))
