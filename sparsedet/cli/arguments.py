"""Command-line arguments that the detecting tools share; neither torch nor detectron2 is needed."""

from __future__ import annotations

import argparse
from itertools import chain

from ..runtime.engines import ENGINES, PRECISIONS


def detection_parser(doc: str) -> argparse.ArgumentParser:
    """A parser with --confidence-threshold, to go through :func:`parse`; ``doc`` is its --help."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="the least score of a detection, 0 to 1 (default: 0.5)",
    )
    return parser


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs an exported file, and how."""
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--threads", type=threads, metavar="N", help="of the CPU (default: all)")
    parser.add_argument(
        "--precision",
        choices=dict.fromkeys(chain(*PRECISIONS.values())),
        default="f32",
        help="what the engine computes in; bf16 in OpenVINO alone (default: f32)",
    )


def add_annotator_arguments(parser: argparse.ArgumentParser) -> None:
    """What an :class:`~sparsedet.runtime.annotate.Annotator` needs."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="images, folders of images, or quoted patterns (** for any depth of folders)",
    )
    source.add_argument(
        "--video-input",
        metavar="FILE|NUMBER|URL",
        help="a video file, a camera by its number (0), or a stream (rtsp://...); the last two are "
        "recorded until Ctrl-C",
    )
    parser.add_argument("--output", required=True, metavar="DIR")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and check the threshold."""
    args = parser.parse_args()
    if not 0 <= args.confidence_threshold <= 1:
        parser.error("--confidence-threshold is from 0 to 1")
    return args


def positive(text: str) -> int:
    """The type of an argument that is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)


def threads(text: str) -> int:
    """The type of an argument that is a number of threads which can be started."""
    if positive(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text} threads are more than 1024")
    return int(text)
