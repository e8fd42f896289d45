"""A web page that takes a picture and shows what each of several exported detectors finds in it."""

from __future__ import annotations

import base64
import io
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..extras import require
from ..images import read_image
from ..timing import milliseconds, take_turns
from .annotate import Detect, annotate
from .page import PAGE

if TYPE_CHECKING:
    from flask import Flask

RUNS = 5
LONGER_SIDE = 640  # pixels, to which smaller pictures are enlarged, for labels in proportion


@dataclass(frozen=True)
class Model:
    """A detector on the page.

    Attributes:
        name: its heading.
        detect: runs it on an image.
        file_bytes: of the file, or files, that it was loaded from.
    """

    name: str
    detect: Detect
    file_bytes: int


@dataclass(frozen=True)
class Result:
    """What a model found in a picture.

    Attributes:
        picture: (H, W, 3) uint8, BGR, with the detections; a small one is enlarged.
        count: of the detections.
        ms: median milliseconds from pixels to detections.
    """

    model: Model
    picture: np.ndarray
    count: int
    ms: float

    @property
    def data_url(self) -> str:
        """The picture as text that an <img> shows."""
        jpeg = io.BytesIO()
        Image.fromarray(self.picture[:, :, ::-1]).save(jpeg, "JPEG", quality=95)
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def detect_side_by_side(models: Sequence[Model], image: np.ndarray) -> list[Result]:
    """Run the models in turn, A B A B ...: once to warm up, then ``RUNS`` times.

    Args:
        image: (H, W, 3) uint8, BGR

    Raises:
        InputError: a model cannot use the image.
    """
    found = [model.detect(image) for model in models]
    calls = [partial(milliseconds, model.detect, [image]) for model in models]
    times = zip(*take_turns(calls, RUNS, warmup=0))
    scale = max(1, round(LONGER_SIDE / max(image.shape[:2])))
    picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return [
        Result(
            model,
            annotate(picture, replace(detections, boxes=detections.boxes * scale)),
            len(detections),
            statistics.median(ms),
        )
        for model, detections, ms in zip(models, found, times)
    ]


def create_app(models: Sequence[Model], note: str) -> Flask:
    """The page, at "/": a GET asks for a picture, a POST of one shows it; 422 if it is unusable.

    Args:
        models: the first is the one that the others are compared with.
        note: on how they run, for the foot of the page.

    Raises:
        InputError: Flask is not installed.
    """
    flask = require("flask", "the page")
    app = flask.Flask(__name__)
    lock = Lock()  # pictures wait for each other, and times stay true

    def page(**result: object) -> str:
        return flask.render_template_string(PAGE, models=models, note=note, runs=RUNS, **result)

    @app.get("/")
    def ask() -> str:
        return page()

    @app.post("/")
    def show() -> str | tuple[str, int]:
        upload = flask.request.files["picture"]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "picture")
            upload.save(path)
            try:
                image = read_image(path)
                with lock:
                    results = detect_side_by_side(models, image)
            except InputError as error:
                reason = str(error).removeprefix(f"{path}: ")
                return page(error=f"{upload.filename}: {reason}"), 422
        height, width = image.shape[:2]
        return page(heading=f"{upload.filename}, {width} x {height} pixels", results=results)

    return app
