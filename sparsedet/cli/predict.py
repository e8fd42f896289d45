"""Run an exported detector or classifier over images or a video, without detectron2 or torch.

    sparsedet predict --model model.onnx --input photo.jpg folder 'more/*.png' \\
        --output detections
    sparsedet predict --model model.xml --engine openvino --video-input clip.mp4 \\
        --output detections

The output folder gets annotated pictures, or an annotated video, and detections.json, in the form
that sparsedet demo describes. Of a classifier it is classes.json, with the five most probable
classes of each image. Inputs that cannot be read are passed over and named at the end, and the exit
status is then 1. After Ctrl-C, pictures that were done are there; of a video file, nothing is. A
camera (--video-input 0) or a stream (--video-input rtsp://...) is recorded until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os

from ..errors import InputError
from ..files import make_folder, replacing
from ..images import find_images
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

SHOWN = 10  # inputs that could not be read, of what may be millions


def parse_args() -> argparse.Namespace:
    parser = detection_parser(__doc__)
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that sparsedet export wrote"
    )
    add_engine_arguments(parser)
    add_annotator_arguments(parser)
    parser.add_argument(
        "--ray",
        type=int,
        metavar="WORKERS",
        help="run on a Ray cluster; inputs may be addresses (s3://...), and all that is written "
        "is detections.jsonl",
    )
    args = parse(parser)
    if args.ray is not None and (args.ray < 1 or args.video_input):
        parser.error("--ray takes the number of workers, 1 or more, and --input")
    return args


def main() -> None:
    args = parse_args()
    if args.ray:
        run_on_ray(args)
        return
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


def run_on_ray(args: argparse.Namespace) -> None:
    """Write a line of JSON for each image, in the order in which the workers are done."""
    how = {"engine": args.engine, "threads": args.threads or 1, "precision": args.precision}
    Detector(args.model, **how).above(args.confidence_threshold)  # what fails fails here
    from ..runtime.ray_data import detect_on_ray

    addresses = [name for name in args.input if "://" in name]
    files, problems = find_images([name for name in args.input if "://" not in name])
    if not files and not addresses:
        raise InputError("; ".join(problems))
    make_folder(args.output)
    path = os.path.join(args.output, "detections.jsonl")
    inputs = [*map(os.path.abspath, files), *addresses]
    found = detect_on_ray(
        os.path.abspath(args.model), inputs, args.ray, **how, above=args.confidence_threshold
    )
    count, unseen = 0, set(inputs) - set(addresses)
    with replacing(path) as temporary, open(temporary, "w") as file:
        for entry in found:
            problems += [entry["error"]] if "error" in entry else []
            file.write(json.dumps(entry) + "\n")
            count += 1
            unseen.discard(entry["file"])
    problems += [f"{file}: Ray did not read it" for file in sorted(unseen)]  # it warns, and goes on
    print(f"{count} images: {path}")
    if problems:
        shown = "; ".join(problems[:SHOWN])
        raise InputError(f"{len(problems)} inputs could not be read, the first: {shown}")
