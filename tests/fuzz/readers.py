"""Every reader of the program: which files it is tried on, and how it is called."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import annotated, exported, seeds

PICTURE = seeds.pictures()[0]


@dataclass(frozen=True)
class Reader:
    """``read`` gets the path of a file that was changed; it is called in another process.

    ``pack`` makes a file of what was changed, so that a checksum does not end every case;
    ``beside`` is a suffix and the content of a second file.
    """

    read: Callable[[str], object]
    files: Callable[[], list[bytes]]
    suffix: str
    text: bool = False
    pack: Callable[[bytes], bytes] = bytes
    beside: tuple[str, Callable[[], bytes]] | None = None
    needs: str = "sparsedet"


def image(path):
    from sparsedet.images import read_image

    return read_image(path)


def training_image(path):
    from sparsedet.data.mapper import check_image

    check_image({"file_name": path, "width": 32, "height": 24})


def voc(path):
    """As the one annotation of a dataset; the image is one that can be read."""
    from sparsedet.data import load_voc

    folder = os.path.dirname(path)
    for name, content in (("ImageSets/Main/train.txt", b"case"), ("JPEGImages/case.png", PICTURE)):
        _place(os.path.join(folder, name), content)
    annotation = os.path.join(folder, "Annotations", "case.xml")
    _place(annotation, Path(path).read_bytes())
    return load_voc(folder, "train", ["cup", "plate"])


def coco(path):
    from detectron2.data import MetadataCatalog

    from sparsedet.data.coco import load_coco

    for number in range(3):
        _place(os.path.join(os.path.dirname(path), f"{number}.jpg"), PICTURE)
    name = path  # detectron2 keeps the classes of each name
    try:
        load_coco(path, os.path.dirname(path), name)
    finally:
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


def coco_check(path):
    from sparsedet.data.check import check_split
    from sparsedet.data.coco import read_coco

    return str(check_split(path, lambda: read_coco(path, os.path.dirname(path))))


def yolo(path):
    """As the one label of a dataset."""
    from sparsedet.data.yolo import read_yolo

    folder = os.path.dirname(path)
    _place(os.path.join(folder, "data.yaml"), b"train: images\nnames: [cup, plate]\n")
    _place(os.path.join(folder, "images", "case.png"), PICTURE)
    _place(os.path.join(folder, "labels", "case.txt"), Path(path).read_bytes())
    return read_yolo(folder, "train").dicts()


def yolo_yaml(path):
    from sparsedet.data.yolo import read_yolo

    for name, content in (("images/case.png", PICTURE), ("labels/case.txt", seeds.yolo()[0])):
        _place(os.path.join(os.path.dirname(path), name), content)
    return read_yolo(path, "train").dicts()


def _place(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content)


def config(path):
    from detectron2.data import DatasetCatalog

    from sparsedet.detection.config import load_config

    known = set(DatasetCatalog.list())
    try:
        load_config(path)
    finally:
        for name in set(DatasetCatalog.list()) - known:
            DatasetCatalog.remove(name)


def plan(path):
    from torch import nn

    from sparsedet.compress.entries import read_plan, resolve_plan

    layers = {
        "conv1": nn.Conv2d(16, 32, 3), "conv2": nn.Conv2d(32, 32, 3), "fc6": nn.Linear(64, 32)
    }  # fmt: skip
    resolve_plan(nn.ModuleDict(layers), read_plan(path))


def checkpoint(path):
    from torch import nn

    from sparsedet.checkpoint import SparseDetCheckpointer
    from sparsedet.checkpoint.readers import read_network
    from sparsedet.errors import InputError

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)})

    try:
        read_network(path)
    except InputError:
        pass
    SparseDetCheckpointer(Small()).load(path)


def network(path):
    from sparsedet.checkpoint.readers import read_network

    return read_network(path)


def detector(engine):
    def read(path):
        import numpy as np

        from sparsedet.runtime.detector import Detector

        Detector(path, engine, 1)(np.zeros((48, 64, 3), np.uint8))

    return read


READERS = {
    "image": Reader(image, seeds.pictures, ".png"),
    "image, checksums right": Reader(
        training_image, lambda: seeds.pictures()[:3], ".png", pack=seeds.with_png_checksums
    ),
    "VOC annotation": Reader(voc, seeds.annotations, ".xml", text=True),
    "COCO": Reader(coco, seeds.coco, ".json", text=True),
    "COCO, data check": Reader(
        coco_check, seeds.coco, ".json", text=True, needs="sparsedet.data.records"
    ),
    "YOLO label": Reader(yolo, seeds.yolo, ".label", text=True, needs="sparsedet.data.yolo"),
    "YOLO data.yaml": Reader(
        yolo_yaml, seeds.yolo_yaml, ".yaml", text=True, needs="sparsedet.data.yolo"
    ),
    "config": Reader(
        config, seeds.config, ".yaml", text=True, beside=(".py", lambda: seeds.LAZY)
    ),
    "plan": Reader(plan, seeds.plan, ".yaml", text=True),
    ".pth": Reader(checkpoint, seeds.torch_files, ".pth"),
    ".pth, checksums right": Reader(
        checkpoint, seeds.torch_pickles, ".pth", pack=seeds.with_zip_checksums
    ),
    ".pth, legacy": Reader(checkpoint, lambda: seeds.torch_files(False), ".pth"),
    ".pkl": Reader(checkpoint, seeds.pickles, ".pkl"),
    ".safetensors": Reader(checkpoint, seeds.safetensors, ".safetensors", needs="safetensors"),
    ".onnx weights": Reader(network, seeds.onnx_weights, ".onnx", needs="onnx"),
    ".h5 weights": Reader(network, seeds.hdf5, ".h5", needs="h5py"),
    "exported, ONNX Runtime": Reader(
        detector("onnxruntime"), exported.detectors, ".onnx", needs="onnxruntime"
    ),
    "exported, metadata": Reader(
        detector("onnxruntime"), exported.metadata, ".onnx", True, exported.with_metadata
    ),
    "exported, OpenVINO": Reader(
        detector("openvino"), exported.detectors, ".onnx", needs="openvino"
    ),
    "exported, OpenVINO .xml": Reader(
        detector("openvino"), exported.openvino, ".xml", True,
        beside=(".bin", exported.openvino_weights), needs="openvino",
    ),
    "exported classifier, metadata": Reader(
        annotated.classifier, exported.classifier_metadata, ".onnx", True,
        exported.with_classifier_metadata, needs="onnxruntime",
    ),
    "class folder": Reader(annotated.class_folder, annotated.folders, ".txt", text=True),
    "class folder, image": Reader(
        annotated.classified_image, lambda: seeds.pictures()[:3], ".png",
        pack=seeds.with_png_checksums,
    ),
    "classifier .pth": Reader(
        annotated.classifier_weights, seeds.torch_pickles, ".pth", pack=seeds.with_zip_checksums
    ),
    "COCO, masks and keypoints": Reader(
        annotated.learned_masks, annotated.masks, ".json", text=True
    ),
    "semantic labels": Reader(
        annotated.semantic, annotated.maps, ".png", pack=seeds.with_png_checksums
    ),
    "panoptic json": Reader(annotated.panoptic, annotated.panoptic_json, ".json", text=True),
    "panoptic picture": Reader(
        annotated.panoptic_picture, annotated.segments, ".png", pack=seeds.with_png_checksums
    ),
    "proposals .pkl": Reader(annotated.read_proposals, annotated.proposals, ".pkl"),
    "search.json": Reader(annotated.search, annotated.searches, ".json", text=True),
    "metrics.json": Reader(annotated.training_curves, annotated.metrics, ".json", text=True),
}  # fmt: skip
