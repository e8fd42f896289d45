"""Which images and videos the user means, and reading them whatever their kind."""

from __future__ import annotations

import glob
import math
import os
import warnings
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InputError

# What a folder is searched for; a file that is named, or found by a pattern, may be of any kind.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The image files that files, folders and patterns (``*``, ``**``) stand for.

    Of a folder, the images directly in it; of a pattern, the files that it matches. Each is sorted.

    Returns:
        The files, each once, and one line for each input that stands for none.
    """
    files, problems = [], []
    for name in inputs:
        path = os.path.expanduser(name)
        if os.path.isfile(path):
            found, problem = [path], ""
        elif os.path.isdir(path):
            found = _matching_files(os.path.join(glob.escape(path), "*"))
            found = [file for file in found if file.lower().endswith(IMAGE_SUFFIXES)]
            problem = "no image in this folder"
        elif glob.has_magic(path):
            found, problem = _matching_files(path), "no file matches"
        else:
            found, problem = [], "no such file or folder"
        files += found
        if not found:
            problems.append(f"{name}: {problem}")
    return list(dict.fromkeys(map(os.path.normpath, files))), problems


def _matching_files(pattern: str) -> list[str]:
    return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))


def read_image(path: str) -> np.ndarray:
    """An image file as (H, W, 3) uint8, BGR, upright.

    As detectron2's ``read_image``, which gives a picture of one channel three equal ones and drops
    alpha, but with values of more than 8 bits scaled instead of clipped, and every TIFF upright.

    Raises:
        InputError: missing, empty, truncated, or not an image.
    """
    try:
        if os.path.getsize(path) == 0:
            raise InputError(f"{path}: empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd palettes and metadata
            # Given a name instead, Pillow maps the file, and garbles some TIFFs that are turned.
            with open(path, "rb") as file, Image.open(file) as image:
                # detectron2 turns a TIFF that Pillow has turned already.
                image = ImageOps.exif_transpose(image)
                if image.mode == "F" or image.mode.startswith("I"):
                    image = Image.fromarray(_to_8_bits(np.asarray(image)))
                return np.asarray(image.convert("RGB"))[:, :, ::-1]
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or of an unknown kind") from None
    except Exception as error:  # on damaged files Pillow raises nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: {reason}") from error


def open_video(path: str) -> cv2.VideoCapture:
    """A video file, ready to read.

    Raises:
        InputError: missing, or not a video.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what it says is no help to a user
    video = cv2.VideoCapture(path)
    if not video.isOpened():
        raise InputError(f"{path}: not a video that OpenCV can read")
    return video


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale so that the largest value that the same number of bits holds becomes 255.

    Files of 16 bits often hold 10, 12 or 14 and do not tell. Where nothing is above 1, 1 is white.
    """
    pixels = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0).clip(0)
    largest = pixels.max()
    full_scale = 1 if largest <= 1 else 2 ** max(8, math.ceil(largest).bit_length()) - 1
    return (pixels * (255 / full_scale)).round().astype(np.uint8)
