"""An exported file that is damaged, or says what no detector is, ends in one line."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from PIL import Image

from sparsedet.detection.load import load_model
from sparsedet.errors import InputError
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime.detector import Detector
from sparsedet.runtime.model_info import KEY, ModelInfo
from sparsedet.runtime.seal import check_seal, seal

NAMES = ["cup", "plate", "spoon"]
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
OLD_KEYS = [
    *("class_names", "format", "min_size", "max_size", "smallest_side", "score_threshold"),
    *("precision", "version"),
]
INFO = ModelInfo(NAMES, "BGR", 64, 128, 32, 0.05, "f32", "0.2.0")


@pytest.fixture(scope="module")
def exported(kitchen, tmp_path_factory):
    """The folder of a model.onnx."""
    folder = tmp_path_factory.mktemp("exported")
    model = load_model(kitchen / "config.yaml")
    export_graph(model, str(folder / "model.onnx"), class_names=NAMES, min_size=64, max_size=128)
    return folder


def refused(path, message, *engine):
    with pytest.raises(InputError, match=message) as error:
        Detector(path, *engine)(IMAGE)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_changed_bit_anywhere(exported, tmp_path, engine):
    pytest.importorskip(engine)
    content = (exported / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for place in np.random.default_rng(0).integers(0, len(content) - 100, 10).tolist():
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        refused(path, "damaged, or changed since", engine)
    path.write_bytes(content[:-86])  # without its checksum, which its version has
    refused(path, "damaged, or changed since", engine)


def test_openvino_s_two_files(exported, kitchen, tmp_path):
    pytest.importorskip("openvino")
    path, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    export_graph(
        load_model(kitchen / "config.yaml"), str(path), class_names=NAMES, min_size=64, max_size=128
    )
    check_seal(str(path))
    assert len(Detector(path, "openvino")(IMAGE))
    for file in (path, weights):
        content = file.read_bytes()
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        file.write_bytes(changed)
        refused(path, "damaged, or changed since", "openvino")
        file.write_bytes(content)
    weights.unlink()
    refused(path, "damaged, or changed since", "openvino")


def rewritten(exported, path, change):
    """The model with ``change`` made to it, and a checksum that is right."""
    model = onnx.load(exported / "model.onnx")
    del model.metadata_props[1:]  # the checksum is one of them
    change(model)
    onnx.save(model, path)
    seal(str(path))
    return path


def test_a_graph_that_gives_something_else(exported, tmp_path):
    path = tmp_path / "model.onnx"

    def swapped(model):
        outputs = model.graph.output
        first, second = onnx.ValueInfoProto(), onnx.ValueInfoProto()
        first.CopyFrom(outputs[0])
        second.CopyFrom(outputs[1])
        outputs[0].CopyFrom(second)
        outputs[1].CopyFrom(first)

    assert len(Detector(rewritten(exported, path, lambda model: None))(IMAGE))
    refused(rewritten(exported, path, swapped), "gives no boxes, scores and classes of its names")
    fewer = dataclasses.replace(INFO, class_names=["cup"]).to_json()
    rewritten(exported, path, lambda m: onnx.helper.set_model_props(m, {KEY: fewer}))
    refused(path, "gives no boxes, scores and classes of its names")

    def renamed(model):
        model.graph.input[0].name = "picture"
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = "picture" if name == "image" else name

    refused(rewritten(exported, path, renamed), "the engine cannot run it: ")


@pytest.mark.parametrize(
    "key, value",
    [
        ("class_names", "cup"),
        ("class_names", [1, 2, 3]),
        ("format", "L"),
        ("format", ["BGR"]),
        ("min_size", 1e9),
        ("min_size", 10**9),
        ("min_size", True),
        ("max_size", 0),
        ("smallest_side", -1),
        ("score_threshold", "0.5"),
        ("score_threshold", float("nan")),
        ("precision", None),
        ("version", 0.2),
        ("more", 1),
        ("outputs", "boxes"),
        ("outputs", ["boxes", "scores"]),
        ("outputs", ["boxes", "scores", "classes", "names"]),
        ("outputs", ["semantic"]),  # without the names of stuff
        ("semantic_stride", -1),
        ("panoptic", [0.5]),
        ("panoptic", {"overlap": 0.5, "area": 4096, "score": 0.5}),  # without masks and a map
        ("labels", {"colours": []}),
        ("labels", {"class_colors": [[0, 0, 256]]}),
        ("labels", {"stuff_names": [1]}),
        ("labels", {"keypoint_names": ["a"], "skeleton": [[0, 1]]}),
    ],
)
def test_metadata_of_other_types(key, value):
    assert ModelInfo.from_json(INFO.to_json()) == INFO
    assert list(json.loads(INFO.to_json())) == OLD_KEYS
    with pytest.raises((TypeError, ValueError)):
        ModelInfo.from_json(json.dumps({**dataclasses.asdict(INFO), key: value}))


@pytest.mark.parametrize("text", ["", "[1]", "null", "{}", "[" * 100_000])
def test_metadata_that_is_no_mapping(exported, tmp_path, text):
    path = tmp_path / "model.onnx"
    rewritten(exported, path, lambda model: onnx.helper.set_model_props(model, {KEY: text}))
    refused(path, "no sparsedet metadata in it")


def test_the_command_ends_in_one_line(exported, tmp_path, picture, run_tool):
    content = bytearray((exported / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    model, photo, output = tmp_path / "model.onnx", tmp_path / "a.png", tmp_path / "out"
    model.write_bytes(content)
    Image.fromarray(picture(40, 40)).save(photo)
    arguments = ["--model", model, "--input", photo, "--output", output]
    status, errors = run_tool("predict.py", *arguments)
    assert status == 1 and not output.exists()
    assert errors == [
        f"error: {model}: damaged, or changed since sparsedet export wrote it; export it again"
    ]
