"""detectron2's mapper, its images read as everywhere else in this package."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data.detection_utils import SizeMismatchError, check_image_size

from ..compat import with_globals
from ..errors import InputError
from ..images import read_image, read_labels
from ..modeling import meta_architecture


class CheckedDatasetMapper(DatasetMapper):
    """`DatasetMapper` that reads by `sparsedet.images`.

    An object without the mask that the model learns from is left out, as detectron2's loader does;
    one without keypoints has none that is labelled, as COCO has it.

    Raises (when called):
        InputError: the image cannot be read, is not of the size annotated, or is too narrow to be
            resized; a mask, keypoints or semantic labels are not what the config asks for. It names
            the file.
    """

    @configurable
    def __init__(self, is_train: bool, *, labels: tuple[int, int] | None = None, **kwargs: Any):
        super().__init__(is_train, **kwargs)
        self.labels = labels

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        if not is_train and cfg.MODEL.KEYPOINT_ON:
            # It asks the training sets, which need not be there, what a flip does to keypoints.
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.KEYPOINT_ON = False
        head = cfg.MODEL.SEM_SEG_HEAD
        learns = meta_architecture(cfg) in ("PanopticFPN", "SemanticSegmentor")
        return {
            **super().from_config(cfg, is_train),
            "labels": (head.NUM_CLASSES, head.IGNORE_VALUE) if learns else None,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        if self.is_train and "annotations" in dataset_dict:
            name = dataset_dict["file_name"]
            objects = (self._to_learn(name, obj) for obj in dataset_dict["annotations"])
            dataset_dict = {**dataset_dict, "annotations": [obj for obj in objects if obj]}
        if "sem_seg_file_name" in dataset_dict:
            path = dataset_dict["sem_seg_file_name"]
            labels = self._read_labels(path, dataset_dict) if self.is_train else None
            dataset_dict = {**dataset_dict, "sem_seg_file_name": labels}
            if not self.is_train:  # the evaluator reads them itself
                del dataset_dict["sem_seg_file_name"]
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

    def _read_labels(self, path: str, dataset_dict: dict) -> np.ndarray:
        """(H, W) uint8, in which detectron2 resizes them."""
        labels = read_labels(path)
        size = (dataset_dict.get("height"), dataset_dict.get("width"))
        if None not in size and labels.shape != size:
            raise InputError(
                f"{path}: {labels.shape} labels, but its image has {size} pixels (height, width)"
            )
        number, ignored = self.labels or (256, 255)
        odd = labels[((labels < 0) | (labels >= min(number, 256))) & (labels != ignored)]
        if odd.size:
            raise InputError(
                f"{path}: a label is {odd.max()}, where MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number} "
                f"and {ignored} is no class"
            )
        return labels.astype(np.uint8)

    def _to_learn(self, name: str, obj: dict) -> dict | None:
        """An object of the image ``name`` with all that the model learns; None if it lacks that."""
        if obj.get("iscrowd", 0):
            return obj  # left out of training in any case
        if self.use_instance_mask:
            mask = obj.get("segmentation")
            if mask is None or not len(mask):
                return None
            if isinstance(mask, dict) and self.instance_mask_format == "polygon":
                raise InputError(f"{name}: a mask in RLE; set INPUT.MASK_FORMAT to bitmask")
        if self.use_keypoint:
            expected = len(self.keypoint_hflip_indices)
            points = obj.get("keypoints") or [0.0] * 3 * expected
            if len(points) != 3 * expected:
                raise InputError(
                    f"{name}: an object of {len(points) // 3} keypoints, where DATASETS.TRAIN "
                    f"names {expected}"
                )
            return {**obj, "keypoints": points}
        return obj


def check_image(dataset_dict: dict) -> None:
    """Decode the whole image of a dataset dict and compare its size, as the mapper will.

    Raises:
        InputError: the image cannot be read, or is not of the size annotated.
    """
    _check_size(dataset_dict, read_image(dataset_dict["file_name"]))


def _read(file_name: str | np.ndarray, format: str) -> np.ndarray:
    if isinstance(file_name, np.ndarray):  # the labels of a segmentation, read before
        return file_name[:, :, None]
    return read_image(file_name, format)


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
