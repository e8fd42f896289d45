"""Small exported files, as bytes, and how their checksums are put right again."""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "files"  # a detector that 0.1.0 wrote
FOUND = {
    "boxes": np.array([[1, 2, 30, 40], [3, 4, 20, 10]], np.float32),
    "scores": np.array([0.9, 0.5], np.float32),
    "classes": np.array([0, 2]),
}


def detectors() -> list[bytes]:
    """A whole detector."""
    import onnx

    model = onnx.load(GOLDEN / "model.onnx")
    model.metadata_props[0].value = metadata()[0].decode()
    return [_sealed(model.SerializeToString())]


def metadata() -> list[bytes]:
    import onnx

    text = onnx.load(GOLDEN / "model.onnx").metadata_props[0].value
    return [text.replace('"0.1.0"', '"0.2.0"').encode()]


def with_metadata(text: bytes) -> bytes:
    """A detector of this metadata, which finds the same in every image: it loads in no time."""
    return _graph(FOUND, text)


def classifiers() -> list[bytes]:
    return list(map(with_classifier_metadata, classifier_metadata()))


def classifier_metadata() -> list[bytes]:
    content = {
        "class_names": ["cup", "plate", "spoon"], "format": "RGB", "shorter_side": 40, "size": 32,
        "precision": "f32", "version": "0.2.0", "task": "classification",
    }  # fmt: skip
    return [json.dumps(content).encode()]


def with_classifier_metadata(text: bytes) -> bytes:
    return _graph({"probabilities": np.array([0.2, 0.7, 0.1], np.float32)}, text)


def openvino() -> list[bytes]:
    """The .xml of OpenVINO's form; :func:`openvino_weights` is the .bin beside it."""
    return [_openvino()[0]]


def openvino_weights() -> bytes:
    return _openvino()[1]


def _graph(found: dict[str, np.ndarray], metadata: bytes) -> bytes:
    """An .onnx that gives ``found``, whatever the image."""
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in found.items()
    ]
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in found.items()
    ]
    graph = helper.make_graph(nodes, "constant", [image], outputs)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"sparsedet": metadata.decode(errors="replace")})
    return _sealed(model.SerializeToString())


def _sealed(content: bytes) -> bytes:
    from sparsedet.runtime.seal import seal

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.onnx"
        place.write_bytes(content)
        seal(str(place))
        return place.read_bytes()


@cache
def _openvino() -> tuple[bytes, bytes]:
    import openvino

    from sparsedet.runtime.seal import seal

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.xml"
        (Path(folder) / "model.onnx").write_bytes(with_metadata(metadata()[0]))
        openvino.save_model(openvino.Core().read_model(place.with_suffix(".onnx")), place)
        seal(str(place))
        return place.read_bytes(), place.with_suffix(".bin").read_bytes()
