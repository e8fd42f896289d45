"""Evaluate a detector on the config's DATASETS.TEST, or another or an exported file beside it.

    sparsedet evaluate --config-file output/config.yaml --weights output/model_final.pth
    sparsedet evaluate --config-file compact/config.yaml --beside dense/config.yaml \\
        --beside-weights dense/model_final.pth
    sparsedet evaluate --config-file output/config.yaml --weights output/model_final.pth \\
        --model model.onnx

The first prints what ``sparsedet train --eval-only`` does: COCO's AP of boxes, masks and keypoints,
VOC's mAP, IoU of semantic maps, panoptic quality, recall of proposals, as far as the model gives
them and the data set has them. With --beside that is done with another model first, such as the
dense one, and a table of both follows. With --model, the first of these metrics are told of both,
and how far their maps, and their detections above a score of 0.05, are apart; both run on the CPU.
"""

from __future__ import annotations

import argparse

from ..detection.predictor import Predictor
from ..errors import InputError
from ..exporting.evaluate import LEAST_SCORE, evaluate_export
from ..memory import keep_freed_memory
from ..reports.metrics import metrics_table
from ..reports.tables import pipe_table
from ..runtime.detector import Detector
from ..training.setup import setup
from .arguments import add_engine_arguments
from .model_arguments import model_config, model_parser
from .train import evaluate


def parse_args() -> argparse.Namespace:
    parser = model_parser(__doc__)
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument("--beside", metavar="FILE", help="the config of a model to compare with")
    beside.add_argument(
        "--model", metavar="FILE", help="a file that sparsedet export wrote, to run beside PyTorch"
    )
    parser.add_argument(
        "--beside-weights",
        metavar="FILE",
        help="of --beside (default: MODEL.WEIGHTS of its config)",
    )
    add_engine_arguments(parser)
    args = parser.parse_args()
    if args.beside_weights and not args.beside:
        parser.error("--beside-weights is for --beside")
    return args


def main() -> None:
    """The command."""
    args = parse_args()
    keep_freed_memory()
    if args.model:
        evaluate_beside(args)
        return
    results = {}
    if args.beside:
        results[args.beside] = _evaluate(args, args.beside, args.beside_weights)
    results[args.config_file] = _evaluate(args, args.config_file, args.weights)
    if args.beside:
        print(metrics_table(results))


def _evaluate(args: argparse.Namespace, config: str, weights: str | None = None) -> dict:
    given = ["MODEL.WEIGHTS", weights] if weights else []
    one = argparse.Namespace(config_file=config, opts=[*args.opts, *given], eval_only=True)
    with setup(one) as cfg:
        return evaluate(cfg)


def evaluate_beside(args: argparse.Namespace) -> None:
    """Print a table of the checkpoint and the exported file, and how far they are apart."""
    cfg = model_config(args, "MODEL.DEVICE", "cpu")
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty; name the dataset to evaluate on")
    detector = Detector(args.model, args.engine, args.threads, args.precision)
    predictor = Predictor(cfg)
    for dataset in cfg.DATASETS.TEST:
        pytorch, exported, apart = evaluate_export(predictor, detector, dataset)
        rows = [
            ["PyTorch", *(f"{value:.2f}" for value in pytorch.values())],
            [args.model, *(f"{value:.2f}" for value in exported.values())],
            ["difference", *(f"{exported[name] - pytorch[name]:+.2f}" for name in pytorch)],
        ]
        print(pipe_table([dataset, *pytorch], rows))
        print(f"beside PyTorch, above a score of {LEAST_SCORE}: {apart}")
