"""Classify many images: labelled pictures, and a list of all probabilities as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..drawing import draw_boxes
from ..errors import InputError
from ..files import replacing
from ..images import find_images, read_image
from .annotate import picture_name
from .classifier import Classes

BEST = 5  # classes of each image that are told


def label_images(
    inputs: Sequence[str], output: str, classify: Callable[[np.ndarray], Classes]
) -> None:
    """Classify what files, folders and patterns stand for.

    The output folder gets a picture of each image, its most probable class written on it, and
    classes.json: a list with an entry for each image,

        {"file": as it was named, "output": the picture in the output folder, "width": pixels,
         "height": pixels, "classes": [{"class": name, "probability": 0 to 1}, ...]}

    with the five most probable classes, the best first.

    Raises:
        InputError: nothing to read, or the output folder is that of an input; or at the end, naming
            the inputs that could not be read.
    """
    files, problems = find_images(inputs)
    if not files:
        raise InputError("; ".join(problems))
    for file in files:
        if os.path.realpath(os.path.dirname(file) or ".") == os.path.realpath(output):
            raise InputError(f"--output {output}: {file} is there too; choose another folder")
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}") from error
    records: list[dict] = []
    taken: set[str] = set()
    total = len(files) + len(problems)
    summary = os.path.join(output, "classes.json")
    try:
        for file in tqdm(files, unit="image"):
            try:
                image = read_image(file)
                found = classify(image)
            except InputError as error:
                message = str(error)
                problems.append(message if message.startswith(file) else f"{file}: {message}")
                continue
            name = picture_name(file, taken)
            _write_picture(os.path.join(output, name), image, found)
            records.append({"output": name, **_record(file, image, found)})
    finally:
        if records:
            with replacing(summary) as temporary, open(temporary, "w") as lines:
                lines.write("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    print(f"{len(records)} images: {summary}")
    if problems:
        lost = f"{len(problems)} of {total} inputs could not be read: "
        raise InputError(lost + "; ".join(problems))


def _record(file: str, image: np.ndarray, found: Classes) -> dict:
    height, width = image.shape[:2]
    best = zip(found.names[:BEST], found.probabilities[:BEST].tolist())
    classes = [{"class": name, "probability": round(p, 4)} for name, p in best]
    return {"file": file, "width": width, "height": height, "classes": classes}


def _write_picture(path: str, image: np.ndarray, found: Classes) -> None:
    height, width = image.shape[:2]
    whole = np.array([[0, 0, width - 1, height - 1]])
    label = f"{found.names[0]} {found.probabilities[0]:.2f}"
    picture = draw_boxes(image, whole, [int(found.classes[0])], [label])
    kind = "PNG" if path.endswith(".png") else "JPEG"
    with replacing(path) as temporary:
        Image.fromarray(picture[:, :, ::-1]).save(temporary, kind, quality=95)
