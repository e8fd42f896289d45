"""Run an exported detector over images or a video, without detectron2 or torch.

    sparsedet predict --model model.onnx --input photo.jpg folder 'more/*.png' \\
        --output detections
    sparsedet predict --model model.xml --engine openvino --video-input clip.mp4 \\
        --output detections

The output folder gets annotated pictures, or an annotated video, and detections.json, in the form
that sparsedet demo describes. Inputs that cannot be read are passed over and named at the end, and
the exit status is then 1. After Ctrl-C, pictures that were done are there; of a video file, nothing
is. A camera (--video-input 0) or a stream (--video-input rtsp://...) is recorded until Ctrl-C.
"""

from __future__ import annotations

import argparse

from ..runtime.annotate import Annotator
from ..runtime.detector import Detector
from .arguments import (
    add_annotator_arguments,
    add_engine_arguments,
    detection_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    parser = detection_parser(__doc__)
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that sparsedet export wrote"
    )
    add_engine_arguments(parser)
    add_annotator_arguments(parser)
    return parse(parser)


def main() -> None:
    args = parse_args()
    annotator = Annotator(args.input, args.video_input, args.output)
    detector = Detector(args.model, args.engine, args.threads, args.precision)
    annotator.run(detector.above(args.confidence_threshold))
