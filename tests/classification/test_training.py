"""A classifier by config: trained, resumed, evaluated, compressed, saved and loaded."""

import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torchvision.transforms import v2

import sparsedet
from sparsedet.classification.mapper import ClassificationMapper
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.layers import SparseFusionConv2d

CLASSES = ["blue", "green", "red"]


def weights(path):
    return torch.load(path, weights_only=True)["model"]


@pytest.fixture
def trained(config, run_tool, tmp_path):
    status, errors = run_tool("train_net.py", "--config-file", config)
    assert status == 0, errors[-1]
    return tmp_path / "output"


def metrics(folder):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["classification/top1"] for line in lines if "classification/top1" in line][-1]


def test_the_whole_road(trained, run_tool, tmp_path, folder):
    config = trained / "config.yaml"
    assert metrics(trained) > 60
    model = sparsedet.load_model(config, trained / "model_final.pth")
    assert model.class_names == CLASSES
    result = sparsedet.compress_(model, params=2, flops=2, num_images=8)
    assert result.parameters[0] >= 2 * result.parameters[1]
    assert isinstance(model.network[6], SparseFusionConv2d)
    assert isinstance(model.network[10], torch.nn.Linear)
    result.save(tmp_path / "compact")
    status, errors = run_tool(
        "train_classifier.py", "--config-file", tmp_path / "compact" / "config.yaml"
    )
    assert status == 0, errors[-1]
    finetuned = tmp_path / "compact" / "finetune"
    compact = sparsedet.load_model(finetuned / "config.yaml", finetuned / "model_final.pth")
    assert isinstance(compact.network[6], SparseFusionConv2d)
    with torch.no_grad():
        (found,) = compact([ClassificationMapper(compact.cfg, False)(record(folder))])
    assert found["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def record(folder):
    return {"file_name": str(folder / "val" / "red" / "0.png"), "label": 2}


def test_a_resumed_run_is_the_same(config, run_tool, tmp_path):
    for name, *arguments in (
        ("one", "SOLVER.MAX_ITER", 6),
        ("two", "SOLVER.MAX_ITER", 3),
        ("two", "SOLVER.MAX_ITER", 6),
    ):
        resume = ["--resume"] if (tmp_path / name).exists() else []
        output = ["OUTPUT_DIR", tmp_path / name, *arguments]
        status, errors = run_tool("train_classifier.py", "--config-file", config, *resume, *output)
        assert status == 0, errors[-1]
    one, two = (weights(tmp_path / name / "model_final.pth") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_training_is_that_of_torch(config):
    model = build(config)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = [0, 1, 2, 1]
    inputs = [{"image": image, "label": label} for image, label in zip(images, labels)]
    model.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = model.network((images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    expected = F.softmax(logits, 1)
    found = torch.stack([x["probabilities"] for x in model(inputs)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    model.training = True  # batch norms stay in eval mode
    torch.testing.assert_close(
        model(inputs)["loss_cls"], F.cross_entropy(logits, torch.tensor(labels))
    )


def build(config, *opts):
    from detectron2.modeling import build_model

    return build_model(load_config(str(config), [*map(str, opts)]))


@pytest.mark.parametrize("size", [(60, 47), (47, 61), (300, 100)])
def test_images_are_cut_as_by_torchvision(size, config, tmp_path, picture):
    path = tmp_path / "photo.png"
    image = Image.fromarray(picture(*size))
    image.save(path)
    reference = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor()])
    found = ClassificationMapper(load_config(str(config)), False)({"file_name": str(path)})
    assert torch.equal(found["image"], reference(image))


def test_frozen_layers_stay(config, run_tool, tmp_path):
    status, errors = run_tool(
        "train_net.py", "--config-file", config, "MODEL.CLASSIFIER.FROZEN", "['network.[0-4]']"
    )
    assert status == 0, errors[-1]
    torch.manual_seed(0)
    trained = weights(tmp_path / "output" / "model_final.pth")
    assert trained["network.4.num_batches_tracked"] == 0
    model = build(config, "MODEL.CLASSIFIER.FROZEN", "['network.[0-4]']")
    assert not model.network[0].weight.requires_grad and model.network[6].weight.requires_grad
    model.train()
    assert not model.network[4].training and model.training


def test_uniform_by_the_command(trained, run_tool, tmp_path):
    status, errors = run_tool(
        "compress.py", "--config-file", trained / "config.yaml",
        "--weights", trained / "model_final.pth", "--uniform", "2x", "--num-images", 6,
        "--output", tmp_path / "half",
    )  # fmt: skip
    assert status == 0, errors[-1]
    plan = yaml.safe_load((tmp_path / "half" / "plan.yaml").read_text())
    assert list(plan) == ["network.3", "network.6"]  # neither the first nor the last
    assert all(2 <= entry["before"] / entry["after"] < 2.6 for entry in plan.values())
    assert (tmp_path / "half" / "model.pth").exists()


def test_classes_in_another_order_are_matched(trained, run_tool, folder, tmp_path):
    """The same weights score the same on a data set that lists its classes otherwise."""
    text = (trained / "config.yaml").read_text()
    values = yaml.safe_load(text)
    top1 = metrics(trained)
    for entry in values["DATASETS"]["REGISTER"].values():
        entry["classes"] = ["red", "blue", "green"]
    values["OUTPUT_DIR"] = str(tmp_path / "again")
    path = tmp_path / "order.yaml"
    path.write_text(yaml.safe_dump(values))
    status, errors = run_tool(
        "train_classifier.py", "--config-file", path, "--eval-only",
        "MODEL.WEIGHTS", trained / "model_final.pth",
    )  # fmt: skip
    assert status == 0, errors[-1]
    log = (tmp_path / "again" / "log.txt").read_text()
    assert f"{top1:.4f}" in log
    for entry in values["DATASETS"]["REGISTER"].values():
        entry["classes"] = ["red", "blue", "yellow"]
    path.write_text(yaml.safe_dump(values))
    status, errors = run_tool(
        "train_classifier.py", "--config-file", path, "--eval-only",
        "MODEL.WEIGHTS", trained / "model_final.pth",
    )  # fmt: skip
    assert status == 1 and "yellow" in errors[-1] and "green" in errors[-1]


def test_what_only_detectors_do(trained, config, run_tool):
    status, errors = run_tool(
        "train_net.py", "--config-file", config, "MODEL.DISTILLATION.TEACHER", "teacher.pth"
    )
    assert status == 1 and "only detectors learn from a teacher" in errors[-1]
    model = sparsedet.load_model(trained / "config.yaml", trained / "model_final.pth")
    with pytest.raises(InputError, match="a classifier finds no boxes"):
        sparsedet.Predictor.of(model)
