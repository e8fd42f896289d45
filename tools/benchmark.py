#!/usr/bin/env python
"""Time detectors side by side: any number of configs, each in any number of engines.

    python tools/benchmark.py --config-file dense.yaml sparse.yaml --weights dense.pth sparse.pth \\
        --engine eager optimized onnxruntime onnxruntime:int8 --against first --json rows.json

An engine is NAME or NAME:PRECISION (default f32):

    eager         as detectron2 runs it
    optimized     sparsedet.engine.optimize_for_inference; also bf16
    onnxruntime   the exported file, on the CPU; also f16 (weights) and int8
    openvino      likewise

All run in one process, in turns, on the same images of noise, which already have the model's size;
a time is from pixels to detections: preprocessing, trunk, proposals, RoI pooling, heads and
suppression. Every engine gives exactly --proposals boxes of each image to the RoI heads, whatever
the weights: in PyTorch the proposal generator runs as ever, and its boxes are then replaced by
fixed ones; an exported file suppresses no proposal, so that the best ones are as many as asked for.
Exported files take the images of a batch one by one.

GFLOPs are billions of multiply-adds for one image, as fvcore counts them. File size is that of the
exported file, or in PyTorch of the parameters and buffers. Peak memory is that of a process of its
own which loads the model and runs it once. Beside each stage stands the time below which this
machine cannot take it, from its best rates in a matrix product and a copy.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from sparsedet import load_config
from sparsedet.analysis import count_flops, count_parameters, environment
from sparsedet.analysis.benchmark import Engine, benchmark, benchmark_table, plot_benchmark
from sparsedet.analysis.machine import Machine, measure_machine
from sparsedet.analysis.memory import peak_rss_mb
from sparsedet.analysis.stages import fix_proposals, stage_bounds, time_stages
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.engine import run
from sparsedet.engine.optimize import optimize_for_inference
from sparsedet.errors import InputError
from sparsedet.files import replacing

IN_PYTORCH = {"eager": ("f32",), "optimized": ("f32", "bf16")}
EXPORTED = {"onnxruntime": ("f32", "f16", "int8"), "openvino": ("f32", "f16", "int8")}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}

RUN_IN_PYTORCH = """
import json, runpy, sys
runpy.run_path(sys.argv[1])["run_once"](**json.loads(sys.argv[2]))
"""
# As where detectron2 and torch are not installed: sparsedet does not import them then.
RUN_EXPORTED = """
import sys, warnings
sys.modules["detectron2"] = None
warnings.simplefilter("ignore")
import numpy
from sparsedet.deploy import Detector
path, engine, threads, height, width = sys.argv[1:]
detector = Detector(path, engine=engine, threads=int(threads))
detector(numpy.zeros((int(height), int(width), 3), numpy.uint8))
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE",
        help="of each config, in order (default: its MODEL.WEIGHTS; random if that is empty)",
    )
    parser.add_argument("--engine", nargs="+", default=["eager"], metavar="NAME[:PRECISION]")
    parser.add_argument("--height", type=_positive, default=600, metavar="PIXELS")
    parser.add_argument("--width", type=_positive, default=1000, metavar="PIXELS")
    parser.add_argument("--proposals", type=_positive, default=300, metavar="N")
    parser.add_argument("--batch", type=_positive, default=1, metavar="N")
    parser.add_argument(
        "--threads", type=_positive, default=torch.get_num_threads(), metavar="N", help="of the CPU"
    )
    parser.add_argument("--rounds", type=_positive, default=10, metavar="N", help="timed ones")
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
    for path in filter(None, (args.json, args.plot)):
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise InputError(f"{path}: no such folder")
    args.engine = [_parse_engine(engine) for engine in args.engine]
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)


def _parse_engine(text: str) -> tuple[str, str]:
    name, _, precision = text.partition(":")
    known = {**IN_PYTORCH, **EXPORTED}
    if name not in known:
        raise InputError(f"--engine {text}: there is no such engine; one of {', '.join(known)}")
    precision = precision or "f32"
    if precision not in known[name]:
        raise InputError(
            f"--engine {text}: {name} has no such precision; one of {', '.join(known[name])}"
        )
    if name in EXPORTED:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"--engine {text}: not installed; pip install {name}") from None
    return name, precision


class Case:
    """A config with its weights, whose RoI heads get ``args.proposals`` boxes in every image.

    Raises:
        InputError: no such config or weights, weights that do not fit, no proposals in this model.
    """

    def __init__(self, config: str, weights: str | None, args: argparse.Namespace):
        self.config, self.weights, self.args = config, weights, args
        cfg = load_config(config)
        weights = cfg.MODEL.WEIGHTS if weights is None else weights
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.RPN.POST_NMS_TOPK_TEST = args.proposals
        cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = max(args.proposals, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST)
        torch.manual_seed(0)
        self.model = build_model(cfg).eval()
        if not {"proposal_generator", "roi_heads"} <= dict(self.model.named_children()).keys():
            raise InputError(f"{config}: not a detector with a proposal generator and RoI heads")
        if weights:
            SparseDetCheckpointer(self.model, strict=True).load(weights)
        fix_proposals(self.model, args.proposals, args.height, args.width)

    def runnable(self, name: str, precision: str) -> nn.Module:
        """The model in a PyTorch engine."""
        if name == "eager":
            return self.model
        return optimize_for_inference(self.model, DTYPES[precision])


def run_once(config: str, weights: str | None, name: str, precision: str, **args) -> None:
    """Load and run; what RUN_IN_PYTORCH measures."""
    args = argparse.Namespace(**args)
    torch.set_num_threads(args.threads)
    detect(Case(config, weights, args).runnable(name, precision), make_images(args))


@torch.no_grad()
def detect(model: nn.Module, images: Sequence[np.ndarray]) -> list[dict]:
    """As ``DefaultPredictor``, without resizing and with any number of images."""
    if model.input_format == "RGB":
        images = [image[:, :, ::-1] for image in images]
    pixels = [torch.as_tensor(image.astype("float32").transpose(2, 0, 1)) for image in images]
    return model([{"image": image} for image in pixels])


def make_images(args: argparse.Namespace) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    size = (args.height, args.width, 3)
    return [generator.integers(0, 256, size, dtype=np.uint8) for _ in range(args.batch)]


def engine_in_pytorch(case: Case, size: dict, name: str, precision: str) -> Engine:
    args, model = case.args, case.runnable(name, precision)
    specification = {
        **{key: getattr(args, key) for key in ("height", "width", "proposals", "batch", "threads")},
        **{"config": case.config, "weights": case.weights, "name": name, "precision": precision},
    }
    return Engine(
        case.config,
        name,
        precision,
        run=lambda images: detect(model, images),
        file_bytes=sum(t.numel() * t.element_size() for t in case.model.state_dict().values()),
        peak_rss_mb=peak_rss_mb(RUN_IN_PYTORCH, __file__, json.dumps(specification)),
        time_stages=lambda images: time_stages(model, lambda: detect(model, images)),
        bounds=stage_bounds(
            case.model,
            lambda: detect(case.model, make_images(args)),
            best_rates(model.device, DTYPES[precision]),
            DTYPES[precision].itemsize,
        ),
        **size,
    )


@cache
def best_rates(device: torch.device, dtype: torch.dtype) -> Machine:
    machine = measure_machine(device, dtype)
    print(f"{device}, {dtype}: {machine}")
    return machine


def exported_engine(case: Case, size: dict, name: str, precision: str, folder: str) -> Engine:
    """Export to ``folder``, which is empty."""
    from sparsedet.deploy import Detector
    from sparsedet.deploy.export import export

    args, model = case.args, case.model
    path = os.path.join(folder, "model.xml" if name == "openvino" else "model.onnx")
    picture = os.path.join(folder, "image.png")  # int8 needs some image; here any will do
    Image.fromarray(make_images(args)[0]).save(picture)
    threshold, model.proposal_generator.nms_thresh = model.proposal_generator.nms_thresh, 1.0
    try:
        export(
            model,
            path,
            class_names=[str(i) for i in range(model.roi_heads.num_classes)],
            min_size=0,
            max_size=0,
            precision=precision,
            images=[picture],
        )
    finally:
        model.proposal_generator.nms_thresh = threshold
    os.remove(picture)
    detector = Detector(path, engine=name, threads=args.threads)
    arguments = (path, name, args.threads, args.height, args.width)
    return Engine(
        case.config,
        name,
        precision,
        run=lambda images: [detector(image) for image in images],
        file_bytes=sum(file.stat().st_size for file in os.scandir(folder)),
        peak_rss_mb=peak_rss_mb(RUN_EXPORTED, *map(str, arguments)),
        **size,
    )


def make_engines(args: argparse.Namespace, folder: str) -> list[Engine]:
    engines = []
    for config, weights in zip_longest(args.config_file, args.weights):
        case = Case(config, weights, args)
        flops = count_flops(case.model, args.height, args.width, args.proposals)
        size = {"params": count_parameters(case.model), "gflops": sum(flops.values()) / 1e9}
        for name, precision in args.engine:
            if name in IN_PYTORCH:
                engines.append(engine_in_pytorch(case, size, name, precision))
            else:
                own_folder = os.path.join(folder, str(len(engines)))
                os.mkdir(own_folder)
                engines.append(exported_engine(case, size, name, precision, own_folder))
    return engines


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        engines = make_engines(args, folder)
        rows = benchmark(engines, make_images(args), args.proposals, args.rounds)
    if args.json:
        with replacing(args.json) as temporary, open(temporary, "w") as file:
            json.dump(rows, file, indent=2)
            file.write("\n")
    if args.plot:
        with replacing(args.plot) as temporary:
            plot_benchmark(rows, temporary)
    print(benchmark_table(rows, args.against))
    facts = environment()
    for name in {name for name, _ in args.engine} & EXPORTED.keys():
        facts[name] = importlib.metadata.version(name)
    print("\n" + "; ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    run(main)
