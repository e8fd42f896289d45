"""What an exported file gives, evaluated beside the model that found the truth."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from exporting.kinds import KEYPOINTS, NAMES, STUFF, picture, small_model
from PIL import Image

from sparsedet.detection.labels import model_labels
from sparsedet.detection.predictor import Predictor
from sparsedet.errors import InputError
from sparsedet.exporting.evaluate import evaluate_export
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime.detector import Detector


def truth(predictor, folder, names, count=3):
    """Records whose objects are what the model finds."""
    records = []
    for number in range(count):
        image = picture(96, 128, number)
        path = str(folder / f"{number}.png")
        Image.fromarray(image[:, :, ::-1]).save(path)
        found = predictor.detect(image, names)
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


def maps(predictor, records, folder, names):
    """Write what the model finds as maps of labels and as COCO's panoptic json; its path."""
    rows = []
    for number, record in enumerate(records):
        found = predictor.detect(picture(96, 128, number), names)
        record["sem_seg_file_name"] = str(folder / f"{number}-stuff.png")
        Image.fromarray(found.semantic.astype(np.uint8)).save(record["sem_seg_file_name"])
        if found.panoptic is None:
            continue
        ids = found.panoptic.ids.astype(np.uint8)
        Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1)).save(folder / f"{number}-all.png")
        info = [
            {"id": s.id, "category_id": s.category_id + 50 * (not s.isthing), "iscrowd": 0}
            for s in found.panoptic.segments
        ]
        rows.append({"image_id": number, "file_name": f"{number}-all.png", "segments_info": info})
    categories = [{"id": i, "name": name, "isthing": 1} for i, name in enumerate(NAMES)]
    categories += [{"id": 50 + i, "name": n, "isthing": 0} for i, n in enumerate(STUFF) if i]
    (folder / "all.json").write_text(json.dumps({"annotations": rows, "categories": categories}))
    return {"panoptic_json": str(folder / "all.json"), "panoptic_root": str(folder)}


@pytest.fixture
def registered(tmp_path):
    """Make a data set whose truth is what a model finds; what registers it."""
    made = []

    def register(kind, predictor, **changes):
        names = {"rpn": ["object"], "sem": []}.get(kind[:3], NAMES)
        records = truth(predictor, tmp_path, names)
        metadata = {"thing_classes": NAMES, "keypoint_names": KEYPOINTS, "stuff_classes": STUFF}
        if kind in ("panoptic", "semantic"):
            metadata.update(maps(predictor, records, tmp_path, names))
        DatasetCatalog.register("what_was_found", lambda: records)
        MetadataCatalog.get("what_was_found").set(**{**metadata, **changes})
        made.append("what_was_found")
        return made[0]

    yield register
    for name in made:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def model_of(kind):
    opts = ["TEST.KEYPOINT_OKS_SIGMAS", [0.1] * len(KEYPOINTS), "INPUT.MASK_FORMAT", "bitmask"]
    return small_model(kind, *opts)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The file of a small model of a kind, made once."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def file(kind):
        if kind not in made:
            model, path = model_of(kind), str(folder / f"{len(made)}.onnx")
            names = {"rpn": ["object"], "sem": []}.get(kind[:3], NAMES)
            export_graph(
                model, path, class_names=names, min_size=96, max_size=144, input_format="BGR",
                labels=model_labels(model.cfg, model, names),
            )  # fmt: skip
            made[kind] = path
        return made[kind]

    return file


# The metrics, and what of them the model reaches that found the truth.
FOUND = {
    "mask fpn": ({"COCO AP", "AP50", "VOC mAP", "mask AP", "mask AP50"}, {"mask AP50": 20}),
    "keypoint": (
        {"COCO AP", "AP50", "VOC mAP", "keypoint AP", "keypoint AP50"},
        {"keypoint AP50": 20},
    ),
    "panoptic": (
        {"COCO AP", "AP50", "VOC mAP", "mask AP", "mask AP50", "mIoU", "PQ"},
        {"mIoU": 100, "PQ": 100},
    ),
    "semantic": ({"mIoU"}, {"mIoU": 100}),
    "rpn fpn": ({"AR@100", "AR@1000"}, {"AR@100": 99}),
}


@pytest.mark.parametrize("kind", FOUND)
def test_what_the_file_gives_is_evaluated(kind, registered, file_of):
    predictor, detector = Predictor.of(model_of(kind)), Detector(file_of(kind))
    pytorch, found, apart = evaluate_export(predictor, detector, registered(kind, predictor))
    names, least = FOUND[kind]
    assert pytorch.keys() == found.keys() == names
    assert all(pytorch[name] >= value for name, value in least.items())  # some masks are empty
    for name, value in pytorch.items():
        assert found[name] == pytest.approx(value, abs=1), name
    assert apart.unmatched == 0 and (apart.semantic or 0) < 0.001
    assert (apart.semantic is not None) == ("mIoU" in names)


def test_another_order_of_things(registered, file_of):
    """The classes of a file are matched by name, those of its segments too."""
    predictor, detector = Predictor.of(model_of("panoptic")), Detector(file_of("panoptic"))
    dataset = registered("panoptic", predictor)
    detector.info.class_names.reverse()
    moved = predictor.model.class_names = NAMES[::-1]
    _, found, apart = evaluate_export(predictor, detector, dataset)
    assert apart.panoptic < 0.001 and apart.unmatched == 0
    assert moved == detector.info.class_names and found["PQ"] < 100


@pytest.mark.parametrize(
    "kind, other, changes, message",
    [
        ("semantic", "semantic", {"stuff_classes": STUFF[::-1]}, "its stuff are things, table"),
        ("keypoint", "keypoint", {"keypoint_names": KEYPOINTS[::-1]}, "its keypoints are top, "),
        ("mask fpn", "keypoint", {}, "gives no masks: these are not of the same model"),
        ("faster fpn", "panoptic", {}, "the model gives no masks: these are not of the same"),
        ("rpn fpn", "semantic", {}, "the model gives no semantic: these are not of the same"),
    ],
)
def test_another_kind_or_other_names_are_refused(
    kind, other, changes, message, registered, file_of
):
    predictor, detector = Predictor.of(model_of(kind)), Detector(file_of(other))
    with pytest.raises(InputError, match=message) as caught:
        evaluate_export(predictor, detector, registered(kind, predictor, **changes))
    assert "\n" not in str(caught.value)
