"""The size of an image, from the head of its file."""

from __future__ import annotations

import warnings

from PIL import Image

from ..errors import InputError
from ..images import FORMATS

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF


def upright_size(path: str) -> tuple[int, int]:
    """Width and height as the image is read: turned as its EXIF says.

    Raises:
        InputError: missing, or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large images
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                # Pillow has turned a TIFF already.
                turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _TURNED
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except Exception as error:  # on damaged files Pillow raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image: {reason}") from None
    return (height, width) if turned else (width, height)
