"""Evaluate a detector on the config's DATASETS.TEST, or an exported file beside it.

    sparsedet evaluate --config-file output/config.yaml --weights output/model_final.pth
    sparsedet evaluate --config-file output/config.yaml --weights output/model_final.pth \\
        --model model.onnx

The first prints what ``sparsedet train --eval-only`` does. With --model, it is COCO AP, AP50 and
VOC mAP of both, and how far the detections above a score of 0.05 are apart; both run on the CPU.
"""

from __future__ import annotations

import argparse

from ..detection.predictor import Predictor
from ..errors import InputError
from ..exporting.evaluate import LEAST_SCORE, describe, evaluate_export
from ..reports.tables import pipe_table
from ..runtime.detector import Detector
from ..training.setup import setup
from .arguments import add_engine_arguments
from .model_arguments import model_config, model_parser
from .train import evaluate


def parse_args() -> argparse.Namespace:
    parser = model_parser(__doc__)
    parser.add_argument(
        "--model", metavar="FILE", help="a file that sparsedet export wrote, to run beside PyTorch"
    )
    add_engine_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """The command."""
    args = parse_args()
    if args.model:
        evaluate_beside(args)
        return
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    args.opts, args.eval_only = [*args.opts, *weights], True
    with setup(args) as cfg:
        evaluate(cfg)


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
        print(f"beside PyTorch, above a score of {LEAST_SCORE}: {describe(apart)}")
