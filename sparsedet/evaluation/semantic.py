"""detectron2's metrics of semantic maps, whose truth is read as all images are, and checked."""

from __future__ import annotations

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ..errors import InputError
from ..images import read_labels
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
        self._compute_boundary_iou = False  # of detectron2's main: more than is told here
        self.reset()

    def process(self, inputs, outputs) -> None:
        number = self._num_classes
        for image, output in zip(inputs, outputs):
            found = field(output, "sem_seg").argmax(dim=0).cpu().numpy()
            path = self.input_file_to_gt_file[image["file_name"]]
            truth = read_labels(path)
            ignored = truth == self._ignore_label
            if truth.shape != found.shape or not ((0 <= truth) & (truth < number) | ignored).all():
                raise InputError(
                    f"{path}: its labels are not those of {number} classes, or its size is not "
                    f"{found.shape}"
                )
            truth[ignored] = number
            pairs = (number + 1) * found + truth
            counts = np.bincount(pairs.ravel(), minlength=self._conf_matrix.size)
            self._conf_matrix += counts.reshape(self._conf_matrix.shape)
            self._predictions.extend(self.encode_json_sem_seg(found, image["file_name"]))
