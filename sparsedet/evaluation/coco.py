"""COCO's metrics of boxes, masks and keypoints, by pycocotools, for any registered dataset."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.logger import create_small_table
from pycocotools.cocoeval import COCOeval, Params

from ..errors import InputError
from ..files import replacing
from ..reports.tables import pipe_table
from .coco_tables import encode_mask, found_row, table, truth_row, with_areas
from .detections import BoxEvaluator, ImageDetections, MissingData, field, per_class

METRICS = {  # the first of COCOeval's, for each of its kinds
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}


class COCOBoxEvaluator(BoxEvaluator):
    """COCO AP from the dataset's own dicts, so it needs no json.

    Crowds count as COCO has it; difficult objects are objects like any other. The 100 best
    detections of an image count.

    Args:
        dataset_name, class_names: as in :class:`BoxEvaluator`.
        output_folder: gets the detections as json, in the dataset's own ids.
    """

    task = "bbox"
    file_name = "coco_instances_results.json"
    sigmas: Sequence[float] = ()

    def __init__(
        self, dataset_name: str, output_folder: str, class_names: Sequence[str] | None = None
    ):
        super().__init__(dataset_name, class_names)
        self._output_folder = output_folder

    def score(self, detections: Sequence[ImageDetections], dataset: list[dict]) -> dict:
        metadata = MetadataCatalog.get(self.dataset_name)
        os.makedirs(self._output_folder, exist_ok=True)
        path = os.path.join(self._output_folder, self.file_name)
        ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
        category_ids = {place: category_id for category_id, place in ids.items()}
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(list(_results(detections, category_ids)), file)
        objects = (obj for image in dataset for obj in image.get("annotations", ()))
        coco = metadata.get("evaluator_type") in ("coco", "coco_panoptic_seg")
        json_file = metadata.get("json_file") if coco else None
        if json_file and not any("area" in obj for obj in objects):
            dataset = with_areas(dataset, json_file)
        results = evaluate_coco(detections, dataset, self.classes, self.task, self.sigmas)
        metrics = METRICS[self.task]
        classes = [[key[3:], f"{results[key]:.2f}"] for key in results if key not in metrics]
        logging.getLogger(__name__).info(
            "COCO results, %s:\n%s\n%s",
            self.task,
            create_small_table({key: results[key] for key in metrics}),
            pipe_table(["class", "AP"], classes),
        )
        return results


class COCOMaskEvaluator(COCOBoxEvaluator):
    """COCO AP by the overlap of masks.

    Where an object has no mask, its box is looked at neither way, as a crowd is.

    Raises:
        MissingData: no object of the dataset has a mask.
    """

    task = "segm"
    file_name = "coco_segm_results.json"

    def __init__(
        self, dataset_name: str, output_folder: str, class_names: Sequence[str] | None = None
    ):
        super().__init__(dataset_name, output_folder, class_names)
        if not any(obj.get("segmentation") for obj in _objects(dataset_name)):
            raise MissingData(f"the objects of {dataset_name} have no masks")

    def extras(self, found: Instances) -> list[dict]:
        return [{"segmentation": encode_mask(mask)} for mask in field(found, "pred_masks")]


class COCOKeypointEvaluator(COCOBoxEvaluator):
    """COCO AP by the similarity of keypoints (OKS). The 20 best detections of an image count.

    Args:
        sigmas: of each keypoint, as in TEST.KEYPOINT_OKS_SIGMAS; empty for those of COCO's persons.

    Raises:
        MissingData: no object of the dataset has keypoints.
        InputError: not one sigma for each.
    """

    task = "keypoints"
    file_name = "coco_keypoints_results.json"

    def __init__(
        self,
        dataset_name: str,
        output_folder: str,
        class_names: Sequence[str] | None = None,
        sigmas: Sequence[float] = (),
    ):
        super().__init__(dataset_name, output_folder, class_names)
        counts = {len(obj.get("keypoints") or ()) // 3 for obj in _objects(dataset_name)} - {0}
        if not counts:
            raise MissingData(f"the objects of {dataset_name} have no keypoints")
        self.sigmas = list(sigmas) or Params("keypoints").kpt_oks_sigmas.tolist()
        if counts != {len(self.sigmas)}:
            raise InputError(
                f"TEST.KEYPOINT_OKS_SIGMAS: {len(self.sigmas)} of them, but the objects of "
                f"{dataset_name} have {' or '.join(map(str, sorted(counts)))} keypoints; "
                "give one for each"
            )

    def extras(self, found: Instances) -> list[dict]:
        keypoints = field(found, "pred_keypoints").double().numpy()
        if keypoints.shape[1] != len(self.sigmas):
            raise InputError(
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {keypoints.shape[1]}, but the objects "
                f"of {self.dataset_name} have {len(self.sigmas)}"
            )
        # detectron2's are middles of pixels, COCO's their indices
        return [{"keypoints": (one - (0.5, 0.5, 0)).flatten().tolist()} for one in keypoints]


def _objects(dataset_name: str) -> Iterable[dict]:
    for image in DatasetCatalog.get(dataset_name):
        yield from image.get("annotations", ())


def evaluate_coco(
    detections: Iterable[ImageDetections],
    dataset: Iterable[dict],
    class_names: Sequence[str],
    task: str = "bbox",
    sigmas: Sequence[float] = (),
) -> dict[str, float]:
    """COCO's metrics of `detections` against the ground truth in `dataset`.

    Args:
        dataset: detectron2 dataset dicts, every image that counts; the `area` of an annotation is
            that of its mask, or of its box, unless it says it.
        task: "bbox", "segm" or "keypoints".
        sigmas: of each keypoint.

    Returns:
        in percent: AP (mean over IoU, or OKS, 0.5 to 0.95), AP50, AP75; APs (not of keypoints),
        APm and APl of small, medium and large objects; `AP-<class>`. nan where there is no object
        to find.
    """
    images = list(dataset)
    numbers = {image["image_id"]: number for number, image in enumerate(images, start=1)}
    truth = [
        truth_row(numbers[image["image_id"]], obj, task, len(sigmas))
        for image in images
        for obj in image.get("annotations", ())
    ]
    found = [
        found_row(numbers[image.image_id], *one)
        for image in detections
        for one in zip(_xywh(image.boxes), image.classes, image.scores, image.extras)
    ]
    sizes = [(image.get("height"), image.get("width")) for image in images]  # masks have them
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        tables = (table(rows, sizes, len(class_names)) for rows in (truth, found))
        evaluation = COCOeval(*tables, task)
        if task == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # (IoU, recall, class, area: all, detections: the most); -1 where there is no object
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])
    classes = precision[:, :, :, 0, -1].mean(axis=(0, 1))
    metrics = METRICS[task]
    stats = evaluation.stats[: len(metrics)]
    results = dict(zip(metrics, np.where(stats < 0, np.nan, 100 * stats).tolist()))
    return {**results, **per_class(class_names, 100 * classes)}


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()


def _results(detections: Iterable[ImageDetections], category_ids: dict) -> Iterable[dict]:
    for image in detections:
        rows = zip(_xywh(image.boxes), image.classes.tolist(), image.scores, image.extras)
        for box, label, score, extra in rows:
            yield {
                "image_id": image.image_id,
                "category_id": category_ids.get(label, label),
                "bbox": box,
                "score": float(score),
                **extra,
            }
