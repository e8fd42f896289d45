"""detectron2's mapper, its images read as everywhere else in this package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data.detection_utils import SizeMismatchError, check_image_size

from ..compat import with_globals
from ..errors import InputError
from ..images import CHANNELS, read_image


class CheckedDatasetMapper(DatasetMapper):
    """`DatasetMapper` that reads by `sparsedet.images.read_image`.

    Raises (when called):
        InputError: the image cannot be read, is not of the size annotated, or is too narrow to be
            resized; it names the file.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        try:
            return _map(self, dataset_dict)
        except ValueError as error:
            if "must be > 0" not in str(error):  # Pillow's, where a side would have no pixels
                raise
            size = "{width} x {height}".format_map(dataset_dict)
            raise InputError(
                f"{dataset_dict['file_name']}: {size} pixels are too narrow for the model; "
                "leave it out of the dataset"
            ) from None


def check_image(dataset_dict: dict) -> None:
    """Decode the whole image of a dataset dict and compare its size, as the mapper will.

    Raises:
        InputError: the image cannot be read, or is not of the size annotated.
    """
    _check_size(dataset_dict, read_image(dataset_dict["file_name"]))


def _read(file_name: str, format: str | None = None) -> np.ndarray:
    if format in CHANNELS:
        return read_image(file_name, format)
    return detection_utils.read_image(file_name, format)  # the labels of a segmentation, "L"


def _check_size(dataset_dict: dict, image: np.ndarray) -> None:
    try:
        check_image_size(dataset_dict, image)
    except SizeMismatchError as error:
        raise InputError(" ".join(str(error).split())) from None


# The base class calls both by their names in this module.
_utils = SimpleNamespace(
    **{**vars(detection_utils), "read_image": _read, "check_image_size": _check_size}
)
_map = with_globals(DatasetMapper.__call__, utils=_utils)
