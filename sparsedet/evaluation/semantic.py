"""detectron2's evaluation of semantic maps, which says what its data lacks."""

from __future__ import annotations

import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ..errors import InputError
from .detections import MissingData, field


class SemanticEvaluator(SemSegEvaluator):
    """mIoU, fwIoU, mACC and pACC under "sem_seg", in percent, and IoU and ACC of each class.

    Raises:
        MissingData: the dataset has no maps of labels, or no names for these.
        InputError: the model tells another number of classes apart; a map with other labels.
    """

    def __init__(self, dataset_name: str, output_folder: str, num_classes: int):
        metadata = MetadataCatalog.get(dataset_name)
        if not all("sem_seg_file_name" in image for image in DatasetCatalog.get(dataset_name)):
            raise MissingData(f"the images of {dataset_name} have no semantic labels")
        classes = metadata.get("stuff_classes", ())
        if not classes:
            raise MissingData(f"the semantic labels of {dataset_name} have no stuff_classes")
        if len(classes) != num_classes:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, but {dataset_name} has "
                f"{len(classes)} classes"
            )
        if "ignore_label" not in metadata.as_dict():
            metadata.ignore_label = 255
        super().__init__(dataset_name, output_dir=output_folder)
        self.reset()

    def process(self, inputs, outputs) -> None:
        for image, output in zip(inputs, outputs):
            scores = field(output, "sem_seg")
            try:
                super().process([image], [{"sem_seg": scores}])
            except ValueError as error:  # it counts pairs of labels in a square
                name = os.path.basename(self.input_file_to_gt_file[image["file_name"]])
                raise InputError(
                    f"{name}: its labels are not those of {self._num_classes} classes, or its "
                    f"size is not {tuple(np.shape(scores)[1:])}"
                ) from error
