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


# Nothing is loaded from elsewhere. The <input> fills the drop area, and browsers drop into it.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sparsedet</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 2rem auto; max-width: 76rem; padding: 0 1.5rem; color: #1d2733;
         background: #f5f6f8; font: 16px/1.5 system-ui, sans-serif }
  h1 { margin: 0 0 1rem; font-size: 1.5rem; overflow-wrap: anywhere }
  h2 { margin: 1.75rem 0 .75rem; font-size: 1rem; font-weight: 500 }
  h3 { margin: 0; font-size: 1.1rem; overflow-wrap: anywhere }
  .drop { position: relative; display: block; padding: 1.75rem; text-align: center;
          border: 2px dashed #9aa5b1; border-radius: .75rem; background: #fff }
  .drop:hover, .drop:focus-within { border-color: #0b6bcb; background: #f0f6fd }
  .drop input { position: absolute; inset: 0; width: 100%; opacity: 0; cursor: pointer }
  .busy .idle, body:not(.busy) .wait { display: none }
  .busy form { pointer-events: none }
  .error { padding: .75rem 1rem; border-radius: .75rem; color: #8c1d18; background: #fbe9e7 }
  .side { display: grid; gap: 1.5rem;
          grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)) }
  .busy .side { opacity: .4 }
  article { padding: 1rem; border-radius: .75rem; background: #fff; box-shadow: 0 1px 4px #0002 }
  article img { display: block; width: 100%; margin: .75rem 0; border-radius: .25rem }
  dl { display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; margin: 0; white-space: nowrap }
  dt, small, footer { color: #5b6773; font-size: .85rem }
  dd { margin: 0; font-size: 1.3rem; font-weight: 600 }
  small { display: block; font-weight: 400 }
  .better { color: #0a7a3d } .worse { color: #a15c00 }
  footer { margin-top: 1.5rem }
</style>
</head>
<body onpageshow="document.forms[0].reset(); this.className = ''">
{% macro ratio(first, value, better, worse) %}
  {% set times = first / value %}
  {% if times >= 1 %}<small class="better">{{ "%.1f" | format(times) }}x {{ better }}</small>
  {% else %}<small class="worse">{{ "%.1f" | format(1 / times) }}x {{ worse }}</small>{% endif %}
{% endmacro %}
<h1>{{ models | map(attribute="name") | join(", ") }}</h1>
<form method="post" enctype="multipart/form-data">
  <label class="drop">
    <span class="idle">Drop a picture here, or <u>choose one</u></span>
    <span class="wait">Detecting ...</span>
    <input type="file" name="picture" accept="image/*" aria-label="Picture"
           onchange="document.body.className = 'busy'; this.form.submit()">
  </label>
</form>
{% if error %}<p class="error" role="alert">{{ error }}</p>{% endif %}
{% if results %}
<h2>{{ heading }}</h2>
<div class="side">
  {% for result in results %}
  <article>
    <h3>{{ result.model.name }}</h3>
    <img src="{{ result.data_url }}" alt="{{ result.count }} detections">
    <dl>
      <div><dt>Time</dt><dd>{{ "%.1f" | format(result.ms) }} ms
        {% if not loop.first %}{{ ratio(results[0].ms, result.ms, "faster", "slower") }}{% endif %}
      </dd></div>
      <div><dt>File</dt><dd>{{ "%.2f" | format(result.model.file_bytes / 1e6) }} MB
        {% if not loop.first %}
        {{ ratio(results[0].model.file_bytes, result.model.file_bytes, "smaller", "larger") }}
        {% endif %}
      </dd></div>
      <div><dt>Detections</dt><dd>{{ result.count }}</dd></div>
    </dl>
  </article>
  {% endfor %}
</div>
{% endif %}
<footer>{{ note }}. Time: from pixels to detections, the median of {{ runs }} runs after one to
warm up, the models in turn.</footer>
</body>
</html>
"""
