"""Detect in many images or a video: annotated pictures, and a list of all detections as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..drawing import draw_boxes
from ..errors import InputError
from ..files import replacing
from ..images import find_images, open_video, read_image
from .detections import Detections

# Pixels (H, W, 3) uint8, BGR, to what is in them; InputError if they cannot be used.
Detect = Callable[[np.ndarray], Detections]


class Annotator:
    """Images, folders and patterns, or one video; all is checked before a model is loaded.

    The output folder gets an annotated picture of every image (.jpg for a JPEG, .png for all
    others), or the annotated video as .mp4, and detections.json: a list with an entry for each
    image or frame,

        {"file": as it was named, "output": the picture or video in the output folder,
         "frame": number from 0 (video only), "width": pixels, "height": pixels,
         "detections": [{"class": name, "score": 0 to 1, "box": [x0, y0, x1, y1] in pixels}, ...]}

    with the best detection first.

    Raises:
        InputError: nothing to read, or the output folder is that of an input.
    """

    def __init__(self, inputs: Sequence[str] | None, video: str | None, output: str):
        self.output = output
        self.video = open_video(video) if video else None
        self.files, self.problems = ([video], []) if video else find_images(inputs)
        if not self.files:
            raise InputError("; ".join(self.problems))
        for file in self.files:
            if os.path.realpath(os.path.dirname(file) or ".") == os.path.realpath(output):
                raise InputError(f"--output {output}: {file} is there too; choose another folder")
        self.records: list[dict] = []

    def run(self, detect: Detect) -> None:
        """Detect, write, and print a summary; pictures that were done are there after an interrupt.

        Raises:
            InputError: at the end, naming the inputs that could not be read.
        """
        try:
            os.makedirs(self.output, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output {self.output}: {error.strerror}") from error
        total = len(self.files) + len(self.problems)
        summary = os.path.join(self.output, "detections.json")
        try:
            if self.video:
                self._run_video(detect)
            else:
                self._run_images(detect)
        finally:
            if self.records:
                with replacing(summary) as temporary, open(temporary, "w") as file:
                    file.write("[\n" + ",\n".join(map(json.dumps, self.records)) + "\n]\n")
        if self.records:
            found = sum(len(record["detections"]) for record in self.records)
            unit = "frames" if self.video else "images"
            print(f"{found} detections in {len(self.records)} {unit}: {summary}")
        if self.problems:
            raise InputError(
                f"{len(self.problems)} of {total} inputs could not be read: "
                + "; ".join(self.problems)
            )

    def _run_images(self, detect: Detect) -> None:
        taken: set[str] = set()
        for file in tqdm(self.files, unit="image"):
            try:
                image = read_image(file)
            except InputError as error:
                self.problems.append(str(error))
                continue
            try:
                found = detect(image)
            except InputError as error:
                self.problems.append(f"{file}: {error}")
                continue
            name = picture_name(file, taken)
            kind = "PNG" if name.endswith(".png") else "JPEG"
            with replacing(os.path.join(self.output, name)) as temporary:
                Image.fromarray(annotate(image, found)[:, :, ::-1]).save(
                    temporary, kind, quality=95
                )
            self.records.append({"output": name, **record(file, image, found)})

    def _run_video(self, detect: Detect) -> None:
        """All of the video or nothing: half a video would look like the whole one."""
        (file,) = self.files
        expected = int(self.video.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate; <= 0 if unknown
        rate = self.video.get(cv2.CAP_PROP_FPS)
        name = os.path.splitext(os.path.basename(file))[0] + ".mp4"
        # OpenCV tells the kind of file by its suffix.
        target = os.path.join(self.output, name)
        temporary = f"{target}.{os.getpid()}.tmp.mp4"
        writer, records = cv2.VideoWriter(), []
        try:
            with tqdm(total=max(expected, 0) or None, unit="frame") as progress:
                while (frame := self.video.read()[1]) is not None:
                    try:
                        found = detect(frame)
                    except InputError as error:
                        raise InputError(f"{file}: {error}") from error
                    if not writer.isOpened():
                        codec = cv2.VideoWriter_fourcc(*"mp4v")
                        size = (frame.shape[1], frame.shape[0])
                        fps = rate if 1 <= rate <= 240 else 25
                        if not writer.open(temporary, codec, fps, size):
                            raise InputError(f"{temporary}: OpenCV cannot write an mp4 video here")
                    writer.write(annotate(frame, found))
                    records.append(
                        {"output": name, "frame": len(records), **record(file, frame, found)}
                    )
                    progress.update()
            writer.release()
            if len(records) < max(1, 0.95 * expected):
                raise InputError(
                    f"{file}: damaged after frame {len(records)} of {expected}; nothing was written"
                )
            # OpenCV does not tell when the disk is full.
            if cv2.VideoCapture(temporary).get(cv2.CAP_PROP_FRAME_COUNT) != len(records):
                raise InputError(f"{target}: cannot be written whole; is the disk full?")
            os.replace(temporary, target)
            self.records = records
        finally:
            writer.release()
            if os.path.exists(temporary):
                os.remove(temporary)


def record(file: str, image: np.ndarray, found: Detections) -> dict:
    """The entry of an image in detections.json."""
    height, width = image.shape[:2]
    detections = [
        {"class": name, "score": round(score, 4), "box": [round(v, 2) for v in box]}
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes.tolist())
    ]
    return {"file": file, "width": width, "height": height, "detections": detections}


def annotate(image: np.ndarray, found: Detections) -> np.ndarray:
    """A copy of (H, W, 3) uint8, BGR, with boxes, classes and scores."""
    labels = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores)]
    # The best is drawn last, over the others.
    return draw_boxes(image, found.boxes[::-1], found.classes[::-1].tolist(), labels[::-1])


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
