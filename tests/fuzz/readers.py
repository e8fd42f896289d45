"""Every reader of the program: which files it is tried on, and how it is called."""

from collections.abc import Callable
from dataclasses import dataclass

from . import seeds


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
    from sparsedet.data.voc_xml import read_xml

    return read_xml(path, ["cup", "plate"])


def coco(path):
    from detectron2.data import MetadataCatalog

    from sparsedet.data.coco import load_coco

    name = path  # detectron2 keeps the classes of each name
    try:
        load_coco(path, "/tmp", name)
    finally:
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


def coco_check(path):
    from sparsedet.data.check import check_split
    from sparsedet.data.coco import read_coco

    return check_split(path, lambda: read_coco(path, "/tmp"))


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
    "COCO, data check": Reader(coco_check, seeds.coco, ".json", text=True),
    "config": Reader(config, seeds.config, ".yaml", text=True),
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
        detector("onnxruntime"), seeds.detectors, ".onnx", needs="onnxruntime"
    ),
    "exported, metadata": Reader(
        detector("onnxruntime"), seeds.metadata, ".onnx", True, seeds.with_metadata
    ),
    "exported, OpenVINO": Reader(detector("openvino"), seeds.detectors, ".onnx", needs="openvino"),
    "exported, OpenVINO .xml": Reader(
        detector("openvino"), seeds.openvino, ".xml", True,
        beside=(".bin", seeds.openvino_weights), needs="openvino",
    ),
}  # fmt: skip
