"""Run a trained detector over images or a video, as detectron2's own demo does.

    sparsedet demo --config-file output/config.yaml --input photo.jpg folder 'more/*.png' \\
        --output detections --opts MODEL.WEIGHTS output/model_final.pth
    sparsedet demo --config-file output/config.yaml --video-input clip.mp4 \\
        --output detections --opts MODEL.WEIGHTS output/model_final.pth

The output folder gets an annotated picture of every image (.jpg for a JPEG, .png for all others),
or the annotated video as .mp4, and detections.json: a list with an entry for each image or frame,

    {"file": as it was named, "output": the picture or video in the output folder,
     "frame": number from 0 (video only), "width": pixels, "height": pixels,
     "detections": [{"class": name, "score": 0 to 1, "box": [x0, y0, x1, y1] in pixels}, ...]}

with the best detection first. A detection has "segmentation" too, its mask, where the model gives
one, as COCO's compressed RLE, {"size": [height, width], "counts": text}; and "keypoints", COCO's
triples [x, y, score, ...] in one list, where a pixel's center has whole numbers. A panoptic model
gives "segments_info", [{"id": from 1, "category_id": index of the class among things or among
stuff, "isthing": bool, "area": pixels, "class": name, "segmentation": RLE}, ...]; a semantic one
"semantic", the same without "id" and "isthing".

Inputs that cannot be read are passed over and named at the end, and
the exit status is then 1. After Ctrl-C, pictures that were done are there; of a video file, nothing
is. A camera (--video-input 0) or a stream (--video-input rtsp://...) is recorded until Ctrl-C.
"""

from __future__ import annotations

import argparse

from ..detection.classes import detected_class_names
from ..detection.config import load_config
from ..detection.predictor import Predictor
from ..memory import keep_freed_memory
from ..runtime.annotate import Annotator
from .arguments import add_annotator_arguments, detection_parser, parse


def parse_args() -> argparse.Namespace:
    parser = detection_parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides, last on the line",
    )
    add_annotator_arguments(parser)
    return parse(parser)


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    annotator = Annotator(args.input, args.video_input, args.output)
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = args.confidence_threshold
    predictor = Predictor(cfg)
    names = detected_class_names(cfg, predictor.model)
    least = args.confidence_threshold  # a LazyConfig has a threshold of its own
    annotator.run(lambda image: predictor.detect(image, names).above(least))
