"""Evaluate an exported detector beside its PyTorch model, on the config's DATASETS.TEST.

    python tools/evaluate_export.py --config-file output/config.yaml \\
        --weights output/model_final.pth --model model.onnx

Prints COCO AP, AP50 and VOC mAP of both, as tools/train_net.py --eval-only finds them, and how far
the detections above a score of 0.05 are apart. Both run on the CPU.
"""

from __future__ import annotations

import argparse

from ..detection.predictor import Predictor
from ..errors import InputError
from ..exporting.evaluate import LEAST_SCORE, describe, evaluate_export
from ..reports.tables import pipe_table
from ..runtime.detector import Detector
from .arguments import add_engine_arguments
from .model_arguments import model_config, model_parser


def parse_args() -> argparse.Namespace:
    parser = model_parser(__doc__)
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that tools/export_model.py wrote"
    )
    add_engine_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
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
