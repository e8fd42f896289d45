"""Export a trained detector to one file that runs without detectron2 and torch.

    python tools/export_model.py --config-file output/config.yaml \\
        --weights output/model_final.pth --output model.onnx
    python tools/export_model.py --config-file output/config.yaml \\
        --weights output/model_final.pth --output model.xml --precision int8 --images photos

Writes ONNX, or OpenVINO IR where the output is named .xml (with a .bin beside it). Before it is put
in place, the file is run on one picture (the first of --images, or a generated one, in which few
models find anything) beside the PyTorch model, and the largest difference is printed; f32 is
refused beyond 0.5 pixels or 0.001 of score. tools/predict.py runs the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..detection.classes import test_class_names
from ..detection.predictor import Predictor
from ..errors import InputError
from ..exporting.evaluate import PIXELS, SCORE, compare_with_pytorch, describe
from ..exporting.exporter import PRECISIONS, export, replacing_files
from ..images import find_images, read_image
from ..runtime.detector import Detector
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
    args = parse_args()
    if not args.output.endswith((".onnx", ".xml")):
        raise InputError(f"--output {args.output}: the name must end in .onnx or .xml")
    images, problems = find_images([args.images]) if args.images else ([], [])
    if problems:
        raise InputError(f"--images {problems[0]}")
    if args.precision == "int8" and not images:
        raise InputError("--precision int8 needs --images to calibrate on")
    cfg = model_config(args, "MODEL.DEVICE", "cpu")
    names = test_class_names(cfg)
    predictor = Predictor(cfg)
    picture = read_image(images[0]) if images else generated_picture()
    with replacing_files(args.output) as temporary:
        export(
            predictor.model,
            temporary,
            class_names=names,
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            precision=args.precision,
            images=images,
        )
        check(temporary, predictor, names, picture, args.precision)
    print(f"wrote {args.output}")


def generated_picture() -> np.ndarray:
    """Smooth random colours, (480, 640, 3) uint8."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((640, 480), Image.Resampling.BICUBIC))


def check(
    file: str, predictor: Predictor, names: Sequence[str], picture: np.ndarray, precision: str
) -> None:
    """Print how far the exported file is from the PyTorch model.

    Raises:
        InputError: too far, for f32.
    """
    engine = "openvino" if file.endswith(".xml") else "onnxruntime"
    expected, found = predictor.detect(picture, names), Detector(file, engine)(picture)
    apart = compare_with_pytorch(predictor.cfg, expected, found)
    print(f"beside PyTorch, on one picture: {describe(apart)}")
    if precision == "f32" and (apart.pixels > PIXELS or apart.score > SCORE or apart.unmatched):
        raise InputError("the exported file differs from the model: nothing was written")
