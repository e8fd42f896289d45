"""Masks and keypoints of an exported file, evaluated beside the model that found the truth."""

from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from exporting.kinds import KEYPOINTS, NAMES, picture, small_model
from PIL import Image

from sparsedet.detection.predictor import Predictor
from sparsedet.exporting.evaluate import evaluate_export
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime.detector import Detector


def truth(predictor, folder, count=3):
    """Records whose objects are what the model finds."""
    records = []
    for number in range(count):
        image = picture(96, 128, number)
        path = str(folder / f"{number}.png")
        Image.fromarray(image[:, :, ::-1]).save(path)
        found = predictor.detect(image, NAMES)
        objects = []
        for i in range(len(found)):
            obj = {
                "bbox": found.boxes[i].tolist(),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": int(found.classes[i]),
                "iscrowd": 0,
            }
            if found.masks is not None:
                mask = np.asfortranarray(np.asarray(found.masks)[i], dtype=np.uint8)
                obj["segmentation"] = pycocotools.mask.encode(mask)
            if found.keypoints is not None:
                points = found.keypoints[i].copy()
                points[:, 2] = 2
                obj["keypoints"] = points.ravel().tolist()
            objects.append(obj)
        size = {"height": 96, "width": 128}
        records.append({"file_name": path, "image_id": number, **size, "annotations": objects})
    return records


@pytest.mark.parametrize("kind, task", [("mask fpn", "mask"), ("keypoint", "keypoint")])
def test_what_the_file_gives_is_evaluated(kind, task, tmp_path):
    opts = ["TEST.KEYPOINT_OKS_SIGMAS", [0.1] * len(KEYPOINTS), "INPUT.MASK_FORMAT", "bitmask"]
    model = small_model(kind, *opts)
    predictor = Predictor.of(model)
    path = str(tmp_path / "model.onnx")
    sizes = {"min_size": 96, "max_size": 144}
    export_graph(model, path, class_names=NAMES, input_format="BGR", **sizes)
    records = truth(predictor, tmp_path)
    DatasetCatalog.register("what_was_found", lambda: records)
    MetadataCatalog.get("what_was_found").set(thing_classes=NAMES, keypoint_names=KEYPOINTS)
    try:
        pytorch, exported, _ = evaluate_export(predictor, Detector(path), "what_was_found")
    finally:
        DatasetCatalog.remove("what_was_found")
        MetadataCatalog.remove("what_was_found")
    assert {f"{task} AP", f"{task} AP50", "COCO AP"} <= pytorch.keys()
    assert pytorch[f"{task} AP50"] > 20  # some random masks are empty
    for name, value in pytorch.items():
        assert exported[name] == pytest.approx(value, abs=1), name
