"""detectron2's mapper, with a bad image said in one line that names it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from PIL import Image

from ..errors import InputError

# What Pillow raises for files that are missing, truncated, corrupt, too large or not images.
_UNREADABLE = (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


class CheckedDatasetMapper(DatasetMapper):
    """`DatasetMapper` that raises InputError, naming the file, for an image it cannot use."""

    def __call__(self, dataset_dict: dict) -> dict:
        with _naming(dataset_dict["file_name"]):
            return super().__call__(dataset_dict)


def check_image(dataset_dict: dict) -> None:
    """Decode the whole image of a dataset dict and compare its size, as the mapper will.

    Raises:
        InputError: the image is missing, cannot be decoded, or is not of the size annotated.
    """
    with _naming(dataset_dict["file_name"]):
        check_image_size(dataset_dict, read_image(dataset_dict["file_name"], format="BGR"))


@contextmanager
def _naming(file_name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{file_name}: no such image") from None
    except SizeMismatchError as error:
        raise InputError(" ".join(str(error).split())) from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file_name}: cannot be read as an image: {reason}") from None
