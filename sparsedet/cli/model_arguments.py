"""Command-line arguments that several tools take."""

from __future__ import annotations

import argparse
import math

from detectron2.config import CfgNode

from ..detection.config import load_config


def model_parser(doc: str) -> argparse.ArgumentParser:
    """A parser of what :func:`model_config` reads; ``doc`` is shown by --help."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--weights", metavar="FILE", help="default: MODEL.WEIGHTS of the config")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides, last"
    )
    return parser


def calibration_parser(doc: str) -> argparse.ArgumentParser:
    """A :func:`model_parser` of a dense model, and of the images to calibrate it on."""
    parser = model_parser(doc)
    parser.add_argument(
        "--images",
        metavar="DIR|GLOB",
        help="images like those that the model will see (default: those of DATASETS.TRAIN)",
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=100,
        metavar="N",
        help="how many to take (default: %(default)s)",
    )
    return parser


def model_config(args: argparse.Namespace, *opts: str) -> CfgNode:
    """The config that the arguments name, with their overrides, and then ``opts``, merged.

    Raises:
        InputError: as :func:`sparsedet.load_config`.
    """
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    return load_config(args.config_file, [*args.opts, *weights, *opts])


def factor(text: str) -> float:
    """Of ``12.4x`` or ``12.4``."""
    value = float(text.removesuffix("x"))
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a factor of at least 1")
    return value
