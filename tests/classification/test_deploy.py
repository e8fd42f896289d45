"""A classifier's exported file, beside PyTorch, and what predict writes of it."""

import json

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

import sparsedet
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.classification.mapper import ClassificationMapper
from sparsedet.compress import plan_to_entries, uniform_plan
from sparsedet.errors import InputError
from sparsedet.images import read_image

CLASSES = ["blue", "green", "red"]


@pytest.fixture
def model(config, tmp_path):
    """Of random weights that are sure of themselves."""
    torch.manual_seed(0)
    built = build_model(sparsedet.load_config(config))
    with torch.no_grad():
        built.network[10].weight.normal_(std=5.0)
    built.class_names = CLASSES
    SparseDetCheckpointer(built, str(tmp_path)).save("model")
    return sparsedet.load_model(config, tmp_path / "model.pth")


FILES = [("c.onnx", "f32"), ("c.onnx", "f16"), ("c.xml", "f32")]


@pytest.mark.parametrize("name, precision", FILES)
def test_a_file_gives_what_pytorch_gives(name, precision, model, folder, tmp_path, picture):
    apart = sparsedet.export(model, tmp_path / name, precision=precision)
    assert apart.probability < (2e-5 if precision == "f32" else 0.02)
    engine = "openvino" if name.endswith(".xml") else "onnxruntime"
    classify = sparsedet.Classifier(tmp_path / name, engine)
    path = tmp_path / "photo.png"
    Image.fromarray(picture(70, 50)).save(path)
    for image in (path, folder / "val" / "red" / "0.png"):
        with torch.no_grad():
            (expected,) = model([ClassificationMapper(model.cfg, False)({"file_name": str(image)})])
        found = classify(image)
        assert list(found.probabilities) == sorted(found.probabilities, reverse=True)
        by_class = np.empty(3)
        by_class[found.classes] = found.probabilities
        np.testing.assert_allclose(by_class, expected["probabilities"], atol=0.02)
        assert found.names == [CLASSES[i] for i in found.classes]


@pytest.mark.parametrize("name", ["c.onnx", "c.xml"])
def test_eight_bits(name, model, folder, tmp_path):
    images = str(folder / "train" / "*" / "*.png")
    plan = plan_to_entries(uniform_plan(model, "checkerboard", 2, exclude=["network.10"]))
    sparsedet.compress_(model, images=images, plan=plan)
    expected = sparsedet.export(model, tmp_path / "f32.onnx", images=images)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    apart = sparsedet.export(model, tmp_path / name, images=images, precision="int8")
    assert expected.probability < 2e-5 < apart.probability < 0.05
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    weights_file = name.replace("xml", "bin")
    small, whole = ((tmp_path / file).stat().st_size for file in (weights_file, "f32.onnx"))
    assert small < whole


def test_eight_bits_need_images(model, tmp_path):
    with pytest.raises(InputError, match="^int8 needs images to calibrate on: "):
        sparsedet.export(model, tmp_path / "c.onnx", precision="int8")
    assert not (tmp_path / "c.onnx").exists()


def test_predict_writes_labels(model, folder, run_tool, tmp_path):
    status, errors = run_tool(
        "export_model.py", "--config-file", tmp_path / "classifier.yaml",
        "--weights", tmp_path / "model.pth", "--output", tmp_path / "c.onnx",
    )  # fmt: skip
    assert status == 0, errors[-1]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    inputs = [folder / "val" / "red", tmp_path / "broken.jpg"]
    arguments = ["--model", tmp_path / "c.onnx", "--input", *inputs]
    status, errors = run_tool("predict.py", *arguments, "--output", tmp_path / "found")
    assert status == 1 and "1 of 4 inputs could not be read" in errors[-1]
    records = json.loads((tmp_path / "found" / "classes.json").read_text())
    assert [record["file"] for record in records] == sorted(map(str, inputs[0].iterdir()))
    found = sparsedet.Classifier(tmp_path / "c.onnx")(records[0]["file"])
    assert records[0]["classes"] == [
        {"class": name, "probability": pytest.approx(p, abs=1e-4)}
        for name, p in zip(found.names, found.probabilities)
    ]
    drawn = read_image(str(tmp_path / "found" / records[0]["output"]))
    assert drawn.shape == read_image(records[0]["file"]).shape
    status, errors = run_tool(
        "predict.py", "--model", tmp_path / "c.onnx", "--video-input", __file__, "--output", "x"
    )
    assert status == 1


def test_files_of_the_other_task_are_told(model, tmp_path, kitchen):
    sparsedet.export(model, tmp_path / "c.onnx")
    with pytest.raises(InputError, match="c.onnx: a classifier, which sparsedet.Classifier runs"):
        sparsedet.Detector(tmp_path / "c.onnx")
    detector = sparsedet.load_model(kitchen / "config.yaml", kitchen / "model.pth")
    sparsedet.export(detector, tmp_path / "d.onnx")
    with pytest.raises(InputError, match="d.onnx: not a classifier"):
        sparsedet.Classifier(tmp_path / "d.onnx")


def test_what_cannot_be_exported(model, tmp_path):
    narrow = np.zeros((1, 900, 3), np.uint8)
    sparsedet.export(model, tmp_path / "c.onnx")
    with pytest.raises(InputError, match="900 x 1 pixels are too narrow"):
        sparsedet.Classifier(tmp_path / "c.onnx")(narrow)
    model.class_names = []
    with pytest.raises(InputError, match="does not say the names of its classes"):
        sparsedet.export(model, tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_compress_carries_on_to_the_file(model, folder, run_tool, tmp_path):
    status, errors = run_tool(
        "compress.py", "--config-file", tmp_path / "classifier.yaml",
        "--weights", tmp_path / "model.pth", "--images", folder / "val" / "red",
        "--num-images", 4, "--uniform", "2x", "--export", "onnx", "--output", tmp_path / "compact",
    )  # fmt: skip
    assert status == 0, errors[-1]
    assert sparsedet.Classifier(tmp_path / "compact" / "model.onnx").info.class_names == CLASSES
