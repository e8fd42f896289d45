"""Export a trained detector or classifier to one file that runs without detectron2 and torch.

    sparsedet export --config-file output/config.yaml \\
        --weights output/model_final.pth --output model.onnx
    sparsedet export --config-file output/config.yaml \\
        --weights output/model_final.pth --output model.xml --precision int8 --images photos

Writes ONNX, or OpenVINO IR where the output is named .xml (with a .bin beside it). Before it is put
in place, the file is run on one picture (the first of --images, or a generated one, in which few
models find anything) beside the PyTorch model, and the largest differences are printed, of boxes,
scores, masks, keypoints and maps, whichever the model gives; f32 is refused beyond 0.5 pixels,
0.001 of score or probability, 1% of the pixels of masks and maps or 10% of the keypoints. sparsedet
predict runs the file.
"""

from __future__ import annotations

import argparse

from ..detection.classes import class_names
from ..detection.load import load_model
from ..exporting.api import export
from ..exporting.exporter import PRECISIONS
from .model_arguments import model_config, model_parser


def parse_args() -> argparse.Namespace:
    parser = model_parser(__doc__)
    parser.add_argument("--output", required=True, metavar="FILE", help=".onnx or .xml")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="f32",
        help="of the weights; int8 computes in it, too (default: f32)",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="to calibrate int8 on, some tens like those to come, and to compare on one of them",
    )
    return parser.parse_args()


def main() -> None:
    """The command."""
    args = parse_args()
    cfg = model_config(args, "MODEL.DEVICE", "cpu")
    for dataset in cfg.DATASETS.TEST:
        class_names(cfg, dataset)  # says what a checkpoint that does not fit would not
    apart = export(load_model(cfg), args.output, precision=args.precision, images=args.images)
    print(f"beside PyTorch, on one picture: {apart}")
    print(f"wrote {args.output}")
