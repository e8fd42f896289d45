"""Small real files, as bytes, for each reader; and how their checksums are put right again."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]


@cache  # two readers want one for every case
def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    deep = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[274] = 6
    picture, files = Image.fromarray(pixels), []
    for image, kind, options in (
        (picture, "PNG", {}),
        (picture.quantize(), "PNG", {}),
        (deep, "PNG", {}),
        (picture, "JPEG", {"exif": turned, "progressive": True}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "BMP", {}),
        (picture, "GIF", {}),
        (picture, "WEBP", {}),
        (picture, "PPM", {}),
    ):
        image.save(file := io.BytesIO(), kind, **options)
        files.append(file.getvalue())
    return files


def with_png_checksums(content: bytes) -> bytes:
    """A PNG whose chunks are as long as they say, and have the checksums that they should."""
    result, place = content[:8], 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        data = content[place + 8 : place + 8 + length]
        result += struct.pack(">I4s", length, kind) + data
        result += struct.pack(">I", zlib.crc32(kind + data))
        place += 12 + length
    return result


def annotations() -> list[bytes]:
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>23.5</ymax></bndbox>"
    difficult = "<difficult>1</difficult>"
    return [
        (
            '<?xml version="1.0" encoding="UTF-8"?><annotation><folder>VOC</folder>'
            "<filename>a.jpg</filename><size><width>32</width><height>24</height>"
            f"<depth>3</depth></size><object><name>cup</name>{difficult}{box}</object>"
            f"<object><name>plate</name><truncated>0</truncated>{box}</object></annotation>"
        ).encode()
    ]


def coco() -> list[bytes]:
    content = {
        "info": {"year": 2020},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 24} for i in range(3)
        ],
        "categories": [{"id": 1, "name": "cup", "supercategory": "x"}, {"id": 3, "name": "plate"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 12.5], "area": 125,
             "iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 14]]},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 32, 24], "area": 768,
             "iscrowd": 1, "segmentation": {"size": [24, 32], "counts": [0, 768]}},
        ],
    }  # fmt: skip
    return [json.dumps(content, indent=1).encode()]


def yolo() -> list[bytes]:
    box, polygon = "0 0.5 0.5 0.25 0.4", "1 0.1 0.1 0.6 0.1 0.6 0.7"
    return [f"{box}\n{polygon}\n".encode()]


def yolo_yaml() -> list[bytes]:
    return [b"path: .\ntrain: images\nval: [images]\nnc: 2\nnames:\n  0: cup\n  1: plate\n"]


LAZY = b"open('intruder', 'w').close()\nmodel = {}\n"  # as a LazyConfig it is run


def config() -> list[bytes]:
    dataset = {"format": "voc", "root": "nowhere", "split": "test", "classes": ["cup", "plate"]}
    content = {
        "_BASE_": str(ROOT / "configs" / "Base-RCNN-VGG-16.yaml"),
        "MODEL": {"DEVICE": "cpu", "VGG": {"DEPTH": 11}, "ANCHOR_GENERATOR": {"SIZES": [[16, 32]]}},
        "SOLVER": {"STEPS": [10, 20], "BASE_LR": 0.001},
        "DATASETS": {"TEST": ["fuzz_test"], "REGISTER": {"fuzz_test": dataset}},
    }
    formula = (
        "_BASE_: BASE\nMODEL:\n  PIXEL_STD: &std [1.0, 2.0, 3.0]\n  PIXEL_MEAN: *std\n"
        "  ANCHOR_GENERATOR:\n"
        '    SIZES: !!python/object/apply:eval ["[[x, x * 2] for x in [32]]"]\n'
    )
    python = "_BASE_: case.py\nMODEL: {MASK_ON: false}\n"  # beside it lies LAZY
    texts = [yaml.safe_dump(content), formula.replace("BASE", content["_BASE_"]), python]
    return [text.encode() for text in texts]


def plan() -> list[bytes]:
    layers = {
        "conv1": {"pattern": "quad", "ranks": [2, 4, 2, 2], "before": 4608, "error": 0.0454},
        "conv2": {"pattern": "cross", "ranks": [4, 4]},
        "fc6": {"rank": 4, "before": 2048, "after": 384},
    }
    return [yaml.safe_dump(layers).encode()]


def _state() -> dict:
    rng = np.random.default_rng(0)
    shapes = {"backbone.conv.weight": (4, 3, 3, 3), "backbone.conv.bias": (4,)}
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


class Intruder:
    """Runs code where a pickle is loaded as Python does."""

    def __reduce__(self):
        return exec, ("open('intruder', 'w').close()",)


def torch_files(new: bool = True) -> list[bytes]:
    import torch

    state = {key: torch.from_numpy(value) for key, value in _state().items()}
    half = {f"module.{key}": value.half() for key, value in state.items()}
    kinds = {"FORMAT": "BGR", "PIXEL_MEAN": [1.0, 2.0, 3.0], "PIXEL_STD": [1.0, 1.0, 1.0]}
    files = []
    for data in (
        {"model": state, "preprocessing": kinds, "iteration": 3},
        {"state_dict": half, "epoch": 3},
        {"model": {"a": Intruder()}},
    ):
        torch.save(data, file := io.BytesIO(), _use_new_zipfile_serialization=new)
        files.append(file.getvalue())
    return files


def torch_pickles() -> list[bytes]:
    """The pickles of files whose tensors are as large as those of the first of them."""
    import torch

    first, *_, intruder = torch_files()
    model = torch.nn.ModuleDict(
        {"backbone": torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3)})}
    )
    torch.save(model.state_dict(), file := io.BytesIO())
    files = (first, file.getvalue(), intruder)
    return [_entries(content)["archive/data.pkl"] for content in files]


def with_zip_checksums(pickled: bytes) -> bytes:
    """The first of :func:`torch_files` with another pickle in it."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name, data in {**_first(), "archive/data.pkl": pickled}.items():
            archive.writestr(name, data)
    return file.getvalue()


@cache
def _first() -> dict[str, bytes]:
    return _entries(torch_files()[0])


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pickles() -> list[bytes]:
    data = {"model": _state(), "__author__": "x", "lr": np.float64(1), "matching_heuristics": True}
    files = [pickle.dumps(data, protocol) for protocol in range(2, 6)]
    return [*files, pickle.dumps({"blobs": {"conv_w": Intruder()}}, 4)]


def safetensors() -> list[bytes]:
    from safetensors.numpy import save

    return [save(_state(), {"format": "pt"})]


def _convolution():
    """torch's own, with a batch norm and a linear layer."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def onnx_weights() -> list[bytes]:
    import torch

    file = io.BytesIO()
    torch.onnx.export(
        _convolution(), (torch.zeros(2, 3, 3, 3),), file, dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip
    return [file.getvalue()]


def hdf5() -> list[bytes]:
    import h5py

    files = []
    for options in ({}, {"compression": "gzip", "chunks": True}):
        with h5py.File(file := io.BytesIO(), "w") as archive:
            for key, value in _state().items():
                group = archive.require_group("model_weights/block1_conv1/block1_conv1")
                group.create_dataset(key.rpartition(".")[2] + ":0", data=value, **options)
            archive.attrs["layer_names"] = [b"block1_conv1"]
        files.append(file.getvalue())
    return files
