#!/usr/bin/env python
"""Run a trained detector over images or a video, as detectron2's own demo does.

    python tools/demo.py --config-file output/config.yaml --input photo.jpg folder 'more/*.png' \\
        --output detections --opts MODEL.WEIGHTS output/model_final.pth
    python tools/demo.py --config-file output/config.yaml --video-input clip.mp4 \\
        --output detections --opts MODEL.WEIGHTS output/model_final.pth

The output folder gets an annotated picture of every image (.jpg for a JPEG, .png for all others),
or the annotated video as .mp4, and detections.json: a list with an entry for each image or frame,

    {"file": as it was named, "output": the picture or video in the output folder,
     "frame": number from 0 (video only), "width": pixels, "height": pixels,
     "detections": [{"class": name, "score": 0 to 1, "box": [x0, y0, x1, y1] in pixels}, ...]}

with the best detection first. Inputs that cannot be read are passed over and named at the end, and
the exit status is then 1. After Ctrl-C, what was done so far is there.
"""

from __future__ import annotations

import argparse

import numpy as np

from sparsedet import load_config
from sparsedet.deploy import Detections
from sparsedet.deploy.annotate import Annotator, Detect
from sparsedet.engine import Predictor, run
from sparsedet.engine.setup import class_names
from sparsedet.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="images, folders of images, or quoted patterns (** for any depth of folders)",
    )
    source.add_argument("--video-input", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="the least score of a detection, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides, last on the line",
    )
    args = parser.parse_args()
    if not 0 <= args.confidence_threshold <= 1:
        parser.error("--confidence-threshold is from 0 to 1")
    return args


def build_detector(predictor: Predictor) -> Detect:
    """Around a predictor: the names of the classes.

    Raises:
        InputError: the classes have no names; when called, an image is too narrow.
    """
    cfg = predictor.cfg
    names = class_names(cfg, cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else []
    if not names:
        raise InputError(
            f"DATASETS.TEST: {cfg.DATASETS.TEST} names no classes; name first the dataset that the "
            "model was trained for"
        )
    backbone = predictor.model.backbone
    strides = [feature.stride for feature in backbone.output_shape().values()]
    smallest = 1 if backbone.size_divisibility else max(strides)  # the former are padded

    def detect(image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        resize = predictor.aug.get_transform(image)
        if min(resize.new_h, resize.new_w) < smallest:
            raise InputError(f"{width} x {height} pixels are too narrow for the model")
        found = predictor(image)["instances"].to("cpu")
        found = found[found.scores.argsort(descending=True)]
        classes = found.pred_classes.numpy()
        boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
        return Detections(boxes, scores, classes, [names[c] for c in classes])

    return detect


def main() -> None:
    args = parse_args()
    annotator = Annotator(args.input, args.video_input, args.output)
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = args.confidence_threshold
    annotator.run(build_detector(Predictor(cfg)))


if __name__ == "__main__":
    run(main)
