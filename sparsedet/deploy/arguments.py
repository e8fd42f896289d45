"""Command-line arguments that the detecting tools share; neither torch nor detectron2 is needed."""

from __future__ import annotations

import argparse

from .engines import ENGINES


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
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all)")


def add_annotator_arguments(parser: argparse.ArgumentParser) -> None:
    """What an :class:`~sparsedet.deploy.annotate.Annotator` needs."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="images, folders of images, or quoted patterns (** for any depth of folders)",
    )
    source.add_argument("--video-input", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="DIR")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and check what was added here."""
    args = parser.parse_args()
    if not 0 <= args.confidence_threshold <= 1:
        parser.error("--confidence-threshold is from 0 to 1")
    threads = getattr(args, "threads", None)
    if threads is not None and threads < 1:
        parser.error("--threads is at least 1")
    return args
