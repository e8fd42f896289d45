"""Run an exported detector or classifier over images or a video, without detectron2 or torch.

    sparsedet predict --model model.onnx --input photo.jpg folder 'more/*.png' \\
        --output detections
    sparsedet predict --model model.xml --engine openvino --video-input clip.mp4 \\
        --output detections

The output folder gets annotated pictures, or an annotated video, and detections.json, in the form
that sparsedet demo describes. Of a classifier it is classes.json, with the five most probable
classes of each image. Inputs that cannot be read are passed over and named at the end, and
the exit status is then 1. After Ctrl-C, pictures that were done are there; of a
video, nothing is.
"""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..runtime.annotate import Annotator
from ..runtime.classifier import Classifier, OtherTask
from ..runtime.detector import Detector
from ..runtime.label import label_images
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
    engine = (args.model, args.engine, args.threads, args.precision)
    try:
        detector = Detector(*engine)
    except OtherTask:
        if args.video_input:
            raise InputError("--video-input: a classifier takes images") from None
        label_images(args.input, args.output, Classifier(*engine))
        return
    annotator.run(detector.above(args.confidence_threshold))
