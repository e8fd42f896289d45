"""``sparsedet classify``: from a folder or a name to a config, and what it refuses."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image
from torchvision import datasets

import sparsedet
from sparsedet.errors import InputError
from sparsedet.modeling.networks import build_network

SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.SIZE", 32, "INPUT.MIN_SIZE_TEST", 36,
    "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "[]", "SEED", 1,
    "DATALOADER.NUM_WORKERS", 0,
]  # fmt: skip


@pytest.fixture
def classify(run_tool, tmp_path):
    def run(*arguments):
        output = ["OUTPUT_DIR", tmp_path / "output"]
        return run_tool("train_classifier.py", *arguments, *SMALL, *output)

    return run


def test_a_folder_and_pretrained_weights_of_a_file(classify, folder, tmp_path):
    torch.manual_seed(0)
    network = build_network("small_cnn", 3)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    status, errors = classify(
        "--model", "small_cnn", "--data", folder, "--weights", tmp_path / "weights.pth",
        "--eval-only",
    )  # fmt: skip
    assert status == 0, errors[-1]
    written = torch.load(tmp_path / "output" / "pretrained.pth", weights_only=True)
    assert written["preprocessing"]["FORMAT"] == "RGB"
    model = sparsedet.load_model(
        tmp_path / "output" / "config.yaml", tmp_path / "output" / "pretrained.pth"
    )
    for key, tensor in network.state_dict().items():
        assert torch.equal(model.state_dict()[f"network.{key}"], tensor)


def test_imagenet_classes_are_its_folders_in_order():
    from sparsedet.classification.pretrained import Pretrained

    published = Pretrained({}, [f"thing {i}" for i in range(1000)], {})
    folders = [f"n{i:08d}" for i in reversed(range(1000))]
    assert published.checkpoint(folders)["class_names"] == sorted(folders)
    assert published.checkpoint(["cat", "dog"])["class_names"][0] == "thing 0"


def test_a_data_set_of_torchvision(classify, tmp_path, monkeypatch):
    """Of its own format on disk, which is written here."""
    root = tmp_path / "tiny"

    class Tiny(datasets.VisionDataset):
        classes = ["dark", "bright"]

        def __init__(self, root, train=True, download=False):
            super().__init__(root)
            if not (root := __import__("pathlib").Path(root)).is_dir():
                raise RuntimeError("Dataset not found")
            self.targets = [0, 1] * (4 if train else 2)

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, index):
            label = self.targets[index]
            return Image.new("RGB", (40, 36), (200 * label + index,) * 3), label

    monkeypatch.setattr(datasets, "Tiny", Tiny, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Tiny"))
    root.mkdir()
    status, errors = classify("--model", "small_cnn", "--data", "Tiny", "--root", root)
    assert status == 0, errors[-1]
    lines = (tmp_path / "output" / "metrics.json").read_text().splitlines()
    assert "classification/top5" in json.loads(lines[-1])
    values = yaml.safe_load((tmp_path / "output" / "config.yaml").read_text())
    assert values["MODEL"]["CLASSIFIER"]["NUM_CLASSES"] == 2


@pytest.fixture
def broken(folder, tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy)
    return copy


def test_bad_data_ends_in_one_line(classify, broken, tmp_path):
    def last(*arguments):
        status, errors = classify("--model", "small_cnn", "--data", *arguments)
        assert status == 1 and errors[-1].startswith("error: ")
        return errors[-1]

    (broken / "val" / "red" / "0.png").write_bytes(b"no picture")
    assert "val/red/0.png: not an image" in last(broken)
    shutil.rmtree(broken / "val" / "red")
    (broken / "val" / "red").mkdir()
    assert f"{broken}/val/red: no image in this class folder" in last(broken)
    (broken / "val" / "red").rmdir()
    assert "train and val have not the same classes: red is only in train" in last(broken)
    shutil.rmtree(broken / "val")
    assert "has the splits train; it needs folders train and val" in last(broken)
    assert "no such folder" in last(tmp_path / "nowhere")
    assert "torchvision has none of this name" in last("Nothing", "--root", broken)
    assert "CIFAR10: " in (line := last("CIFAR10", "--root", broken)) and "download=True" in line


def test_bad_networks_end_in_one_line(classify, folder, tmp_path, monkeypatch):
    for name, message in (
        ("resnet5", "there is no 'resnet5'; did you mean resnet50"),
        ("fasterrcnn_resnet50_fpn", "does not classify images"),
        ("timm:resnet50", "needs timm: pip install timm"),
    ):
        monkeypatch.setitem(__import__("sys").modules, "timm", None)
        status, errors = classify("--model", name, "--data", folder)
        assert status == 1 and message in errors[-1]
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    arguments = ["--data", folder, "--weights", tmp_path / "other.pth"]
    status, errors = classify("--model", "small_cnn", *arguments)
    assert status == 1 and "nothing in it fits the network" in errors[-1]
    status, errors = classify("--model", "small_cnn", "--data", folder, "--pretrained")
    assert status == 1 and "give --weights FILE" in errors[-1]


def test_a_network_with_nothing_to_replace(config_text, tmp_path, monkeypatch):
    """Only depthwise convolutions between the image and the answers."""
    from torch import nn

    from sparsedet.modeling import networks

    def depthwise(num_classes):
        return nn.Sequential(
            nn.Conv2d(3, 3, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
        )

    monkeypatch.setitem(networks.OWN, "small_cnn", depthwise)
    path = tmp_path / "config.yaml"
    path.write_text(config_text)
    from detectron2.modeling import build_model

    model = build_model(cfg := sparsedet.load_config(path))
    model.cfg = cfg
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        sparsedet.compress_(model, params=2, num_images=4)
    print(error.value)
    from sparsedet.compress import even_plan

    with pytest.raises(InputError, match="no layer to replace"):
        even_plan(model, 2, exclude=["network.3"])
