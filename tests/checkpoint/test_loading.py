"""The checkpointer loads what fits, refuses the rest with the model untouched, and saves safely."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsedet.checkpoint import PREPROCESSING, SparseDetCheckpointer
from sparsedet.checkpoint.state_dicts import read_checkpoint
from sparsedet.errors import InputError


class Detector(nn.Module):
    """The shape of a detectron2 model, small."""

    def __init__(self, classes=3, preprocessing="caffe"):
        super().__init__()
        values = PREPROCESSING[preprocessing]
        self.input_format = values["FORMAT"]
        for name in ("pixel_mean", "pixel_std"):
            value = torch.tensor(values[name.upper()]).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.backbone = nn.ModuleDict({"conv1_1": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)})
        self.roi_heads = nn.ModuleDict({"fc6": nn.Linear(8, 6), "cls_score": nn.Linear(6, classes)})


def imagenet_file(path, preprocessing="caffe"):
    """A converted backbone, under bare names."""
    model = {"conv1_1.weight": torch.ones(4, 3, 3, 3), "conv1_1.bias": torch.ones(4)}
    model["fc6.weight"], model["fc6.bias"] = torch.ones(6, 8), torch.ones(6)
    data = {"model": model, "matching_heuristics": True, "__author__": "sparsedet"}
    torch.save({**data, "preprocessing": PREPROCESSING[preprocessing]}, path)
    return str(path)


def refuses(model, path, message, strict=False):
    """Loading raises one line that names the file, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message) as error:
        SparseDetCheckpointer(model, strict=strict).load(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_backbone_initialisation(tmp_path):
    model = Detector()
    path = imagenet_file(tmp_path / "vgg.pth")
    SparseDetCheckpointer(model).load(path)
    assert (model.backbone["conv1_1"].weight == 1).all()
    assert (model.roi_heads["fc6"].weight == 1).all()
    refuses(Detector(), path, "no backbone.bn.weight of shape", strict=True)


def test_other_preprocessing_is_refused(tmp_path):
    path = imagenet_file(tmp_path / "vgg.pth", "torchvision")
    refuses(
        Detector(),
        path,
        r"INPUT.FORMAT: RGB, MODEL.PIXEL_MEAN: \[123.675, .*MODEL.PIXEL_STD: \[58.395",
    )
    SparseDetCheckpointer(Detector(preprocessing="torchvision")).load(path)
    swapped = Detector(preprocessing="torchvision")
    swapped.input_format = "BGR"
    refuses(swapped, path, "INPUT.FORMAT: RGB")
    SparseDetCheckpointer(Detector().backbone).load(path)  # has no preprocessing to compare


def test_saved_checkpoint_records_its_preprocessing(tmp_path):
    source, target = Detector(), Detector()
    SparseDetCheckpointer(source, str(tmp_path)).save("model", iteration=7)
    path = tmp_path / "model.pth"
    assert torch.load(path, weights_only=True)["preprocessing"] == PREPROCESSING["caffe"]
    assert SparseDetCheckpointer(target, strict=True).load(str(path))["iteration"] == 7
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
    refuses(Detector(preprocessing="torchvision"), path, "INPUT.FORMAT: BGR")


def test_other_number_of_classes(tmp_path):
    SparseDetCheckpointer(Detector(classes=3), str(tmp_path)).save("model")
    path, model = tmp_path / "model.pth", Detector(classes=5)
    refuses(model, path, r"no roi_heads.cls_score.weight of shape \(5, 6\).*2 of another", True)
    head = model.roi_heads["cls_score"].weight.clone()
    SparseDetCheckpointer(model).load(str(path))
    assert torch.equal(model.roi_heads["cls_score"].weight, head)


def test_strict_refuses_layers_that_the_model_has_not(tmp_path):
    big = Detector()
    big.backbone["conv1_2"] = nn.Conv2d(4, 4, 3)
    SparseDetCheckpointer(big, str(tmp_path)).save("model")
    refuses(Detector(), tmp_path / "model.pth", "the model has no backbone.conv1_2.weight", True)


def test_resuming_is_strict_and_restores_the_rest(tmp_path):
    def training(classes):
        model = Detector(classes)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return SparseDetCheckpointer(model, str(tmp_path), optimizer=optimizer), optimizer

    checkpointer, optimizer = training(3)
    optimizer.param_groups[0]["lr"] = 0.125
    checkpointer.save("model_0000001")
    checkpointer, optimizer = training(3)
    checkpointer.resume_or_load("", resume=True)
    assert optimizer.param_groups[0]["lr"] == 0.125
    checkpointer, optimizer = training(5)
    with pytest.raises(InputError, match="model_0000001.pth: of another architecture"):
        checkpointer.resume_or_load("", resume=True)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_nothing_for_the_backbone(tmp_path):
    torch.save({"features.0.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "raw.pth")
    refuses(Detector(), tmp_path / "raw.pth", "backbone.conv1_1.weight.*sparsedet convert")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 nothing", b"\x80\x02garbage"], ids=str
)
@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_not_a_checkpoint(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refuses(Detector(), tmp_path / name, "not a checkpoint")


def test_files_that_hold_something_else(tmp_path):
    refuses(Detector(), tmp_path / "none.pth", "no such checkpoint")
    with pytest.raises(InputError, match="MODEL.WEIGHTS is empty"):
        SparseDetCheckpointer(Detector(), strict=True).load("")
    for name, data in {
        "list": [1],
        "text": {"model": "x"},
        "empty": {},
        "nested": {"a": {}},
    }.items():
        torch.save(data, tmp_path / f"{name}.pth")
        refuses(Detector(), tmp_path / f"{name}.pth", "not a checkpoint")
    path = imagenet_file(tmp_path / "vgg.pth")
    with open(path, "rb+") as file:
        file.truncate(os.path.getsize(path) // 2)
    refuses(Detector(), path, "truncated")


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_no_code_is_run(tmp_path, name):
    data = {"model": {"conv1_1.bias": Intruder(str(tmp_path / "made"))}, "__author__": "x"}
    with open(tmp_path / name, "wb") as file:
        torch.save(data, file) if name.endswith("pth") else pickle.dump(data, file)
    refuses(Detector(), tmp_path / name, "not a checkpoint of tensors only")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_model_zoo_pickle(tmp_path, protocol):
    model = {"conv1_1.weight": np.ones((4, 3, 3, 3), np.float32), "conv1_1.bias": np.ones(4)}
    data = {"model": model, "__author__": "x", "matching_heuristics": True, "lr": np.float64(1)}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(data, protocol))
    detector = Detector()
    SparseDetCheckpointer(detector).load(str(tmp_path / "model.pkl"))
    assert (detector.backbone["conv1_1"].weight == 1).all()


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    checkpointer = SparseDetCheckpointer(Detector(), str(tmp_path))
    checkpointer.save("model")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"model.pth", "last_checkpoint"}

    def full_disk(data, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match="model.pth: cannot be written: No space left"):
        checkpointer.save("model")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_what_is_beside_the_weights_takes_no_memory(tmp_path):
    path = str(tmp_path / "model.pth")
    beside = {"momentum": torch.zeros(50_000_000)}
    torch.save({"model": {"weight": torch.arange(6.0)}, "optimizer": beside}, path)
    del beside

    def own_memory():  # bytes
        status = Path("/proc/self/status").read_text().splitlines()
        [line] = [line for line in status if line.startswith("RssAnon")]
        return 1024 * int(line.split()[1])

    before = own_memory()
    data = read_checkpoint(path)
    assert own_memory() - before < 50e6  # of 200e6
    assert torch.equal(data["model"]["weight"], torch.arange(6.0))
    assert data["optimizer"]["momentum"].shape == (50_000_000,)
