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
import json
import os
from typing import Callable

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from sparsedet import load_config
from sparsedet.analysis import draw_boxes
from sparsedet.checkpoint.files import replacing
from sparsedet.engine import Predictor, run
from sparsedet.engine.inputs import find_images, open_video, read_image
from sparsedet.engine.setup import class_names
from sparsedet.errors import InputError

# Name and pixels (H, W, 3), BGR, to the entry in detections.json and the annotated picture.
Detector = Callable[[str, np.ndarray], "tuple[dict, np.ndarray]"]


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


def build_detector(predictor: Predictor) -> Detector:
    """Around a predictor: the names of the classes, and the drawing.

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

    def detect(file: str, image: np.ndarray) -> tuple[dict, np.ndarray]:
        height, width = image.shape[:2]
        resize = predictor.aug.get_transform(image)
        if min(resize.new_h, resize.new_w) < smallest:
            raise InputError(f"{file}: {width} x {height} pixels are too narrow for the model")
        found = predictor(image)["instances"].to("cpu")
        found = found[found.scores.argsort(descending=True)]
        classes, scores = found.pred_classes.tolist(), found.scores.tolist()
        boxes = found.pred_boxes.tensor.tolist()
        detections = [
            {"class": names[c], "score": round(score, 4), "box": [round(v, 2) for v in box]}
            for c, score, box in zip(classes, scores, boxes)
        ]
        labels = [f"{names[c]} {score:.2f}" for c, score in zip(classes, scores)]
        # The best is drawn last, over the others.
        picture = draw_boxes(image, boxes[::-1], classes[::-1], labels[::-1])
        return {"file": file, "width": width, "height": height, "detections": detections}, picture

    return detect


def detect_in_images(
    detect: Detector, files: list[str], folder: str, records: list[dict]
) -> list[str]:
    """Write each file's picture and append its entry to ``records``; one line for each bad file."""
    problems, taken = [], set()
    for file in tqdm(files, unit="image"):
        try:
            record, picture = detect(file, read_image(file))
        except InputError as error:
            problems.append(str(error))
            continue
        name = picture_name(file, taken)
        kind = "PNG" if name.endswith(".png") else "JPEG"
        with replacing(os.path.join(folder, name)) as temporary:
            Image.fromarray(picture[:, :, ::-1]).save(temporary, kind, quality=95)
        records.append({"output": name, **record})
    return problems


def picture_name(file: str, taken: set[str]) -> str:
    """The name of the annotated picture, none of ``taken``, to which it is added."""
    stem, suffix = os.path.splitext(os.path.basename(file))
    if suffix.lower() not in (".jpg", ".jpeg"):
        suffix = ".png"
    name, count = stem + suffix, 1
    while name.lower() in taken:  # some file systems do not tell cases apart
        count += 1
        name = f"{stem}_{count}{suffix}"
    taken.add(name.lower())
    return name


def detect_in_video(
    detect: Detector, file: str, video: cv2.VideoCapture, folder: str, records: list[dict]
) -> list[str]:
    """Write the annotated video and append an entry per frame; a line if frames are missing."""
    expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate; not positive if unknown
    rate = video.get(cv2.CAP_PROP_FPS)
    name = os.path.splitext(os.path.basename(file))[0] + ".mp4"
    # OpenCV tells the kind of file by its suffix.
    temporary = os.path.join(folder, f"{name}.{os.getpid()}.tmp.mp4")
    writer = cv2.VideoWriter()
    try:
        with tqdm(total=max(expected, 0) or None, unit="frame") as progress:
            while (frame := video.read()[1]) is not None:
                record, picture = detect(file, frame)
                if not writer.isOpened():
                    codec = cv2.VideoWriter_fourcc(*"mp4v")
                    size = (record["width"], record["height"])
                    if not writer.open(temporary, codec, rate if 1 <= rate <= 240 else 25, size):
                        raise InputError(f"{temporary}: OpenCV cannot write an mp4 video here")
                writer.write(picture)
                records.append({"output": name, "frame": len(records), **record})
                progress.update()
    finally:
        if writer.isOpened():
            writer.release()
            os.replace(temporary, os.path.join(folder, name))
    if len(records) < max(1, 0.95 * expected):
        return [f"{file}: damaged after frame {len(records)} of {expected}"]
    return []


def main() -> None:
    args = parse_args()
    if args.input:
        files, problems = find_images(args.input)
        if not files:
            raise InputError("; ".join(problems))
    else:
        files, problems, video = [args.video_input], [], open_video(args.video_input)
    for file in files:
        if os.path.realpath(os.path.dirname(file) or ".") == os.path.realpath(args.output):
            raise InputError(f"--output {args.output}: {file} is there too; choose another folder")
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = args.confidence_threshold
    detect = build_detector(Predictor(cfg))
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {args.output}: {error.strerror}") from error

    records: list[dict] = []
    total = len(files) + len(problems)
    try:
        if args.input:
            problems += detect_in_images(detect, files, args.output, records)
        else:
            problems += detect_in_video(detect, files[0], video, args.output, records)
    finally:
        summary = os.path.join(args.output, "detections.json")
        if records:
            with replacing(summary) as temporary, open(temporary, "w") as json_file:
                json_file.write("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    if records:
        found = sum(len(record["detections"]) for record in records)
        unit = "images" if args.input else "frames"
        print(f"{found} detections in {len(records)} {unit}: {summary}")
    if problems:
        raise InputError(
            f"{len(problems)} of {total} inputs could not be read: {'; '.join(problems)}"
        )


if __name__ == "__main__":
    run(main)
