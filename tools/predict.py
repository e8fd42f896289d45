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

from sparsedet.cli import run
from sparsedet.deploy import Detector
from sparsedet.deploy.annotate import Annotator, parse_annotator_args
from sparsedet.deploy.engines import ENGINES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that tools/export_model.py wrote"
    )
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all)")
    args = parse_annotator_args(parser)
    if args.threads is not None and args.threads < 1:
        parser.error("--threads is at least 1")
    return args


def main() -> None:
    args = parse_args()
    annotator = Annotator(args.input, args.video_input, args.output)
    detector = Detector(args.model, args.engine, args.threads)
    annotator.run(detector.above(args.confidence_threshold))


if __name__ == "__main__":
    run(main)
