"""Which images and videos the user means, and reading them whatever their kind."""

from __future__ import annotations

import glob
import math
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputError

# What a folder is searched for; a file that is named, or found by a pattern, may have any name.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may be, in Pillow's names. Its others are less tried, and EPS starts a program."""
MAX_PIXELS = 64_000_000
"""Of an image. What a small file asks of memory is bounded by it: a few bytes a pixel."""
CHANNELS = ("BGR", "RGB")
"""The orders of channels that images are read in, and models work on: INPUT.FORMAT."""

_STRIP = 1 << 20  # pixels that are converted at a time
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 0x0112, 0x0142, 0x0143  # tags of EXIF and TIFF


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


def read_image(path: str, channels: str = "BGR") -> np.ndarray:
    """An image file as (H, W, 3) uint8, upright: the one way in, for training as for inference.

    As detectron2's ``read_image``, which gives a picture of one channel three equal ones and drops
    alpha, but with values of more than 8 bits scaled instead of clipped, every TIFF upright, and
    the checksums of a PNG checked. No other format of ``FORMATS`` has any.

    Args:
        channels: one of ``CHANNELS``.

    Raises:
        InputError: missing, empty, truncated, damaged, of more than ``MAX_PIXELS``, or not an image
            of ``FORMATS``.
    """
    return _read(path, lambda file: decode_image(file, path, channels))


def read_labels(path: str) -> np.ndarray:
    """A picture whose pixels are labels, (H, W) int64: numbers as they are, never colours.

    Of a picture with a palette its indices, as Pascal VOC and detectron2's metrics have it.

    Raises:
        InputError: as :func:`read_image`; it has colours.
    """
    return _read(path, lambda file: _decode(file, path, _to_labels))


def _read(path: str, decode: Callable[[BinaryIO], np.ndarray]) -> np.ndarray:
    try:
        if os.path.getsize(path) == 0:  # a pipe, which would have to be waited for, too
            raise InputError(f"{path}: empty file")
        # Given a name instead, Pillow maps the file, and garbles some TIFFs that are turned.
        with open(path, "rb") as file:
            return decode(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image: {error.strerror}") from error


def decode_image(file: BinaryIO, name: str, channels: str = "BGR") -> np.ndarray:
    """As :func:`read_image`, of an open file or of bytes in memory; errors name ``name``."""
    pixels = _decode(file, name, _to_rgb)
    return pixels if channels == "RGB" else pixels[:, :, ::-1]


def _decode(file: BinaryIO, name: str, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    try:
        if file.seek(0, os.SEEK_END) == 0:
            raise InputError(f"{name}: empty file")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd palettes and metadata
            with Image.open(file, formats=FORMATS) as image:
                _check_size(name, image)
                if image.format == "PNG":
                    _check_png(name, file)
                image.load()
                return _upright(convert(image), image)
    except InputError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise InputError(f"{name}: not an image, or of an unknown kind; known: {known}") from None
    except Image.DecompressionBombError:  # while opening; Pillow's limit is above ours
        raise InputError(_too_large(name)) from None
    except Exception as error:  # on damaged files Pillow raises nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        raise InputError(f"{name}: cannot be read as an image: {reason}") from error


def _too_large(path: str, size: str = "") -> str:
    return f"{path}: {size}more than {MAX_PIXELS // 10**6} megapixels; make it smaller"


def _check_size(path: str, image: Image.Image) -> None:
    """Before anything is decoded."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})  # a tile of a TIFF may be larger than the picture
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    if max(width * height, tile) > MAX_PIXELS:
        raise InputError(_too_large(path, f"{width} x {height} pixels are "))


def _check_png(path: str, file: BinaryIO) -> None:
    """Refuse a PNG with a wrong checksum: Pillow does not look at those of the pixels."""
    place = file.tell()
    file.seek(8)  # past the signature
    kind = b""
    while kind != b"IEND":
        header = file.read(8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        content, checksum = file.read(length), file.read(4)
        if len(checksum) < 4:
            raise InputError(f"{path}: image file is truncated; get it again")
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            raise InputError(f"{path}: damaged PNG, a checksum is wrong; get it again")
    file.seek(place)


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8; strip by strip, as Pillow's and NumPy's copies of the whole add up."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    deep = image.mode == "F" or image.mode.startswith("I")
    full_scale = _full_scale(image) if deep else 0
    for rows, strip in _strips(image):
        if deep:
            pixels[rows] = (_values(strip) * (255 / full_scale)).round()[:, :, None]
        else:
            pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _to_labels(image: Image.Image) -> np.ndarray:
    """(H, W) int64."""
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    pixels = np.asarray(image.convert("RGB"))
    if (pixels != pixels[:, :, :1]).any():
        raise ValueError("it has colours, where each pixel should be the number of a label")
    return pixels[:, :, 0].astype(np.int64)


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    width, height = image.size
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def _values(strip: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(strip).astype(np.float64), posinf=0, neginf=0).clip(0)


def _full_scale(image: Image.Image) -> int:
    """The largest value that the same number of bits holds as the largest of the image.

    Files of 16 bits often hold 10, 12 or 14 and do not tell. Where nothing is above 1, 1 is white.
    """
    largest = max(_values(strip).max() for _, strip in _strips(image))
    return 1 if largest <= 1 else 2 ** max(8, math.ceil(largest).bit_length()) - 1


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turned as the loaded image's EXIF says; Pillow has turned a TIFF already."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata, of which the pixels know nothing
        orientation = 1
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def is_live(video: str) -> bool:
    """Whether a video is a camera, by its number, or a stream, by its address, and no file."""
    return not os.path.isfile(video) and (video.isdecimal() or "://" in video)


def shown_name(video: str) -> str:
    """The name of a video without the user and password that an address may hold."""
    return re.sub(r"//[^/@]*@", "//", video)


def open_video(path: str) -> cv2.VideoCapture:
    """A video file, a camera or a stream, see :func:`is_live`, ready to read.

    Raises:
        InputError: missing, or not a video.
    """
    live = is_live(path)
    if not live and not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what it says is no help to a user
    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has no module for it
    level = log.setLogLevel(0)  # silent
    video = cv2.VideoCapture(int(path) if live and path.isdecimal() else path)
    log.setLogLevel(level)
    if not video.isOpened():
        what = "no camera or stream" if live else "not a video"
        raise InputError(f"{shown_name(path)}: {what} that OpenCV can read")
    return video
