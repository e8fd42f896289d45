"""Detect in many images or a video: annotated pictures, and a list of all detections as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import InputError
from ..files import make_folder, replacing
from ..images import find_images, is_live, open_video, read_image, shown_name
from .detections import Detections
from .pictures import annotate
from .records import record
from .video import VideoFile

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

    with the best detection first. A detection has "segmentation" too, its mask, where the model
    gives one, as COCO's compressed RLE, {"size": [height, width], "counts": text}; and "keypoints",
    COCO's triples [x, y, score, ...] in one list, where a pixel's center has whole numbers.

    A panoptic model gives "segments_info", [{"id": from 1, "category_id": index of the class among
    things or among stuff, "isthing": bool, "area": pixels, "class": name, "segmentation": RLE},
    ...]; a semantic one "semantic", the same without "id" and "isthing".

    Raises:
        InputError: nothing to read, or the output folder is that of an input.
    """

    def __init__(self, inputs: Sequence[str] | None, video: str | None, output: str):
        self.output = output
        self.source = video
        self.video = open_video(video) if video else None
        self.files, self.problems = ([shown_name(video)], []) if video else find_images(inputs)
        if not self.files:
            raise InputError("; ".join(self.problems))
        for file in () if video and is_live(video) else self.files:
            if os.path.realpath(os.path.dirname(file) or ".") == os.path.realpath(output):
                raise InputError(f"--output {output}: {file} is there too; choose another folder")
        self.records: list[dict] = []
        self.count, self.what = 0, "detections"

    def run(self, detect: Detect) -> None:
        """Detect, write, and print a summary; pictures that were done are there after an interrupt.

        Raises:
            InputError: at the end, naming the inputs that could not be read.
        """
        make_folder(self.output)
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
            unit = "frames" if self.video else "images"
            print(f"{self.count} {self.what} in {len(self.records)} {unit}: {summary}")
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
            self._tally(found)

    def _tally(self, found: Detections) -> None:
        count, self.what = found.summary()
        self.count += count

    def _run_video(self, detect: Detect) -> None:
        """All of a file or nothing, as half a video would look like the whole one.

        A camera or a stream has no end of its own: it is recorded until Ctrl-C.
        """
        (file,) = self.files
        expected = int(self.video.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate; <= 0 if unknown
        name = video_name(file)
        live, records = is_live(self.source), []
        progress = tqdm(total=max(expected, 0) or None, unit="frame")
        path, rate = os.path.join(self.output, name), self.video.get(cv2.CAP_PROP_FPS)
        with progress, VideoFile(path, rate) as written:
            try:
                while (frame := self.video.read()[1]) is not None:
                    try:
                        found = detect(frame)
                    except InputError as error:
                        raise InputError(f"{file}: {error}") from error
                    entry = record(file, frame, found)
                    written.write(annotate(frame, found))
                    records.append({"output": name, "frame": len(records), **entry})
                    self._tally(found)
                    progress.update()
            except KeyboardInterrupt:
                if not live or not records:
                    raise
            if len(records) < max(1, 0 if live else 0.95 * expected):
                raise InputError(
                    f"{file}: damaged after frame {len(records)} of {expected}; nothing was written"
                )
            written.finish(len(records))
        self.records = records


def video_name(source: str) -> str:
    """The name of the annotated video: of a file its own, of a stream the last part of its path."""
    if not is_live(source):
        return os.path.splitext(os.path.basename(source))[0] + ".mp4"
    if source.isdecimal():
        return f"camera-{source}.mp4"
    last = source.partition("?")[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", os.path.splitext(last)[0]) + ".mp4"


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
