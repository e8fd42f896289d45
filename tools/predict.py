#!/usr/bin/env python
"""Run an exported detector over images or a video, without detectron2 or torch.

    python tools/predict.py --model model.onnx --input photo.jpg folder 'more/*.png' \\
        --output detections
    python tools/predict.py --model model.xml --engine openvino --video-input clip.mp4 \\
        --output detections

The output folder gets annotated pictures, or an annotated video, and detections.json, in the form
that tools/demo.py describes. Inputs that cannot be read are passed over and named at the end, and
the exit status is then 1. After Ctrl-C, what was done so far is there.
"""

from __future__ import annotations

import argparse

import numpy as np

from sparsedet.cli import run
from sparsedet.deploy import Detections, Detector
from sparsedet.deploy.annotate import Annotator
from sparsedet.deploy.engines import ENGINES
from sparsedet.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that tools/export_model.py wrote"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="images, folders of images, or quoted patterns (** for any depth of folders)",
    )
    source.add_argument("--video-input", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all)")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="the least score of a detection, 0 to 1 (default: 0.5)",
    )
    args = parser.parse_args()
    if not 0 <= args.confidence_threshold <= 1:
        parser.error("--confidence-threshold is from 0 to 1")
    if args.threads is not None and args.threads < 1:
        parser.error("--threads is at least 1")
    return args


def main() -> None:
    args = parse_args()
    annotator = Annotator(args.input, args.video_input, args.output)
    detector = Detector(args.model, args.engine, args.threads)
    least = detector.info.score_threshold
    if args.confidence_threshold < least:
        raise InputError(
            f"--confidence-threshold {args.confidence_threshold}: {args.model} was exported with "
            f"MODEL.ROI_HEADS.SCORE_THRESH_TEST {least}, and gives nothing below"
        )

    def detect(image: np.ndarray) -> Detections:
        return detector(image).above(args.confidence_threshold)

    annotator.run(detect)


if __name__ == "__main__":
    run(main)
