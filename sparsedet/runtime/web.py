"""A web page that takes a picture and shows what each of several exported detectors finds in it."""

from __future__ import annotations

import base64
import io
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
from .annotate import Detect
from .guard import LARGEST, protect
from .page import PAGE, SCRIPT, STYLE
from .pictures import annotate, rescaled

if TYPE_CHECKING:
    from flask import Flask

RUNS = 5
LONGER_SIDE = 640  # pixels, to which smaller pictures are enlarged, for labels in proportion
LARGEST_SIDE = 8192  # to which larger ones shrink, when shown: browsers and JPEG have their limits

REFUSALS = {
    400: "no picture came with the form; choose one",
    413: f"a picture may have {LARGEST // 2**20} MB at most",
    500: "a model failed on this picture; the terminal says why",
}


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
        picture: (H, W, 3) uint8, BGR, with the detections; a small one is enlarged, a huge one
            reduced.
        count: of the detections, or of what else the model finds.
        what: it finds: "detections", "segments" or "classes".
        ms: median milliseconds from pixels to detections.
    """

    model: Model
    picture: np.ndarray
    count: int
    what: str
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
    picture, scale = presentable(image)
    return [
        Result(
            model,
            annotate(picture, rescaled(detections, scale, picture.shape[:2])),
            *detections.summary(),
            statistics.median(ms),
        )
        for model, detections, ms in zip(models, found, times)
    ]


def presentable(image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The image in a size that can be shown, and by what x and y have grown."""
    height, width = image.shape[:2]
    longer = max(height, width)
    factor: float = max(1, round(LONGER_SIDE / longer))
    if longer > LARGEST_SIDE:
        factor = LARGEST_SIDE / longer
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = cv2.INTER_CUBIC if factor >= 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=method), (size[0] / width, size[1] / height)


def create_app(models: Sequence[Model], note: str) -> Flask:
    """The page, at "/": a GET asks for a picture, a POST of one shows it; 422 if it is unusable.

    It answers only to this machine and only to itself; see :func:`~.guard.protect`.

    Args:
        models: the first is the one that the others are compared with.
        note: on how they run, for the foot of the page.

    Raises:
        InputError: Flask is not installed.
    """
    flask = require("flask", "the page")
    app = flask.Flask(__name__)
    protect(app, SCRIPT, STYLE)
    from werkzeug.exceptions import HTTPException  # Flask's

    lock = Lock()  # pictures wait for each other, and times stay true

    def page(**result: object) -> str:
        inline = {"script": SCRIPT, "style": STYLE}
        return flask.render_template_string(
            PAGE, models=models, note=note, runs=RUNS, **inline, **result
        )

    @app.errorhandler(HTTPException)
    def fail(error: HTTPException) -> tuple[str, int]:
        return page(error=REFUSALS.get(error.code, error.description)), error.code

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
