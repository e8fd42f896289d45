"""Readers of classes, masks, maps, proposals and records, with their small real files."""

import io
import json
import os
import pickle
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from . import seeds

STUFF = ["things", "sky", "grass"]


def folders() -> list[bytes]:
    """The files of a class folder, one a line."""
    names = [f"{s}/{c}/{i}.png" for s in ("train", "val") for c in ("cup", "plate") for i in (0, 1)]
    return ["\n".join(names).encode(), b"cup/a/0.png\ncup/1.jpg\nplate/0.png\nplate/b/c/1.png"]


def class_folder(path):
    """As `sparsedet classify --data`; what cannot be a name of a file is left out."""
    from argparse import Namespace

    from sparsedet.cli.classify import model_values
    from sparsedet.data.entries import parse_entry

    root = f"{path}.d".encode()
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    for line in Path(path).read_bytes().split(b"\n"):
        parts = [part for part in line.split(b"/") if part not in (b"", b".", b"..")]
        try:
            os.makedirs(os.path.join(root, *parts[:-1]), exist_ok=True)
            Path(os.fsdecode(os.path.join(root, *parts))).write_bytes(seeds.pictures()[0])
        except (OSError, ValueError):
            continue
    values = model_values(Namespace(data=os.fsdecode(root), root=None, model="vgg11"))
    json.dumps(values).encode()
    for name, entry in values["DATASETS"]["REGISTER"].items():
        parse_entry(name, entry)()


def classified_image(path):
    """As a classifier sees it, in training and otherwise."""
    from sparsedet.classification.mapper import ClassificationMapper

    for is_train in (True, False):
        ClassificationMapper(_config(), is_train)({"file_name": path, "label": 0})


@cache
def _config():
    from detectron2.config import get_cfg

    from sparsedet.config import add_sparsedet_config

    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.MODEL.CLASSIFIER.SIZE, cfg.INPUT.MIN_SIZE_TEST = 32, 40
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = True
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (24,)
    return cfg


def classifier_weights(path):
    """As `sparsedet classify --weights`."""
    from torch import nn

    from sparsedet.checkpoint import stored_class_names
    from sparsedet.classification.pretrained import from_file

    network = nn.ModuleDict({"backbone": nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)})})
    stored_class_names(path)
    found = from_file(path, network)
    found.checkpoint(["cup", "plate"])
    return [str(found.preprocessing[key]) for key in ("FORMAT", "PIXEL_MEAN", "PIXEL_STD")]


def classifier(path):
    """As `sparsedet predict`, which looks for a detector first."""
    from sparsedet.runtime.classifier import Classifier, OtherTask
    from sparsedet.runtime.detector import Detector

    try:
        Detector(path, "onnxruntime", 1)
    except OtherTask:
        Classifier(path, "onnxruntime", 1)(np.zeros((48, 64, 3), np.uint8))


def masks() -> list[bytes]:
    content = json.loads(seeds.coco()[0])
    names = ["left_end", "right_end", "top"]
    content["categories"][0].update(keypoints=names, skeleton=[[1, 2], [2, 3]])
    rows = content["annotations"]
    rows[0].update(keypoints=[1, 2, 2, 5, 6, 1, 0, 0, 0], num_keypoints=2)
    rows[1].update(iscrowd=0, segmentation={"size": [24, 32], "counts": "0Ph0"})
    rows.append({**rows[0], "id": 3, "image_id": 2})
    return [json.dumps(content, indent=1).encode()]


def learned_masks(path):
    """As training and evaluation take masks and keypoints."""
    from detectron2.data import MetadataCatalog

    from sparsedet.cli.reasons import reason
    from sparsedet.data import CheckedDatasetMapper
    from sparsedet.data.coco import read_coco, tell_classes
    from sparsedet.errors import InputError
    from sparsedet.evaluation.coco import evaluate_coco

    folder = os.path.dirname(path)
    for number in range(3):
        Path(folder, f"{number}.jpg").write_bytes(seeds.pictures()[0])
    cfg = _config().clone()
    cfg.DATASETS.TRAIN = (path,)
    try:
        found = read_coco(path, folder)
        tell_classes(found, path, ())
        dicts = found.dicts()
        mapper = CheckedDatasetMapper(cfg, True)
        for record in dicts:
            mapper(record)
        evaluate_coco([], dicts, found.classes, "segm")
    except Exception as error:  # what it says in one line is as good as an InputError
        if isinstance(error, InputError) or not reason(error):
            raise
        raise InputError(reason(error)) from error
    finally:
        if path in MetadataCatalog.list():
            MetadataCatalog.remove(path)


def maps() -> list[bytes]:
    """Pictures of labels, (24, 32)."""
    labels = np.random.default_rng(0).integers(0, 3, (24, 32), dtype=np.uint8)
    indices = Image.fromarray(labels).convert("P")
    files = []
    for picture in (Image.fromarray(labels), indices, Image.fromarray(labels.astype(np.uint16))):
        picture.save(file := io.BytesIO(), "PNG")
        files.append(file.getvalue())
    return files


def semantic(path):
    """As evaluation and training take it."""
    import torch
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from sparsedet.data import CheckedDatasetMapper
    from sparsedet.evaluation.semantic import SemanticEvaluator

    image = f"{path}.jpg"
    Image.new("RGB", (32, 24)).save(image, "JPEG")
    record = {
        "file_name": image, "image_id": 0, "height": 24, "width": 32, "sem_seg_file_name": path
    }  # fmt: skip
    cfg = _config().clone()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "SemanticSegmentor", 3
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = False
    DatasetCatalog.register(path, lambda: [record])
    MetadataCatalog.get(path).set(stuff_classes=STUFF, ignore_label=255)
    try:
        evaluator = SemanticEvaluator(path, os.path.dirname(path), 3)
        evaluator.process([record], [{"sem_seg": torch.zeros(3, 24, 32)}])
        evaluator.evaluate()
        CheckedDatasetMapper(cfg, True)(record)
    finally:
        DatasetCatalog.remove(path)
        MetadataCatalog.remove(path)


def panoptic_json() -> list[bytes]:
    segments = [{"id": 1, "category_id": 7, "iscrowd": 0}, {"id": 2, "category_id": 9, "area": 5}]
    rows = [{"image_id": i, "file_name": f"{i}.png", "segments_info": segments} for i in (0, 1)]
    categories = [{"id": 7, "name": "cup", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]
    content = {"images": [], "annotations": rows, "categories": categories}
    return [json.dumps(content, indent=1).encode()]


def segments() -> list[bytes]:
    """The picture of image 0."""
    ids = np.zeros((24, 32, 3), np.uint8)
    ids[:12, :, 0], ids[12:, :, 0] = 1, 2
    Image.fromarray(ids).save(file := io.BytesIO(), "PNG")
    return [file.getvalue()]


def panoptic(path, picture=None):
    import torch
    from detectron2.data import MetadataCatalog

    from sparsedet.evaluation.panoptic import PanopticEvaluator

    folder = os.path.dirname(path)
    Path(folder, "0.png").write_bytes(picture or segments()[0])
    MetadataCatalog.get(path).set(
        panoptic_json=path, panoptic_root=folder, thing_classes=["cup"],
        stuff_classes=["things", "sky"],
    )  # fmt: skip
    found = torch.as_tensor(np.asarray(Image.open(io.BytesIO(segments()[0])))[:, :, 0].astype(int))
    kinds = [
        {"id": 1, "isthing": True, "category_id": 0}, {"id": 2, "isthing": False, "category_id": 1}
    ]  # fmt: skip
    try:
        evaluator = PanopticEvaluator(path)
        evaluator.process([{"image_id": 0}], [{"panoptic_seg": (found, kinds)}])
        evaluator.evaluate()
    finally:
        MetadataCatalog.remove(path)


def panoptic_picture(path):
    truth = f"{path}.json"
    Path(truth).write_bytes(panoptic_json()[0])
    panoptic(truth, Path(path).read_bytes())


def proposals() -> list[bytes]:
    boxes = [np.arange(4.0 * n).reshape(n, 4).astype(np.float32) for n in (3, 2)]
    content = {"ids": [0, 1], "boxes": boxes, "bbox_mode": 0}
    content["objectness_logits"] = [np.arange(float(len(one))) for one in boxes]
    files = [pickle.dumps(content, protocol) for protocol in (2, 4)]
    return [*files, pickle.dumps({**content, "more": seeds.Intruder()})]


def read_proposals(path):
    from sparsedet.data.proposals import with_proposals

    with_proposals([{"image_id": 0}, {"image_id": 1}], path)


def searches() -> list[bytes]:
    step = {
        "factor": 1.0,
        "parameters": 5,
        "multiply_adds": 1e9,
        "milliseconds": 0.0,
        "score": 90.0,
    }
    steps = [step, {**step, "factor": 2.5, "score": 8.5}]
    settings = {"max_drop": 1.0, "metric": "AP50"}
    return [json.dumps({"settings": settings, "steps": steps}, indent=1).encode()]


def search(path):
    """As `sparsedet compress --max-drop` goes on from it."""
    from sparsedet.max_drop import Search

    folder = f"{path}.d"
    os.makedirs(folder, exist_ok=True)
    Path(folder, "search.json").write_bytes(Path(path).read_bytes())
    found = Search(folder, {"max_drop": 1.0, "metric": "AP50"})
    str(found), [found.within(step) for step in found.steps]


def metrics() -> list[bytes]:
    rows = [{"iteration": i, "total_loss": 1.5 / i, "bbox/AP50": 3.0, "lr": 0.1} for i in (19, 39)]
    return ["\n".join(map(json.dumps, rows)).encode()]


def training_curves(path):
    from sparsedet.reports.training import plot_training_curves

    plot_training_curves({"run": path}, f"{path}.png")
