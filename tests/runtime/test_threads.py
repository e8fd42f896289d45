"""One detector for many threads, and for a list of images."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sparsedet.detection.load import load_model
from sparsedet.exporting.exporter import export_graph
from sparsedet.runtime.detector import Detector


@pytest.fixture(scope="module")
def exported(kitchen, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    names = ["cup", "plate", "spoon"]
    model = load_model(kitchen / "config.yaml")
    export_graph(model, str(path), class_names=names, min_size=64, max_size=128)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_eight_threads_get_what_one_gets(exported, picture, engine):
    pytest.importorskip(engine)
    detector = Detector(exported, engine, threads=1)
    images = [picture(48 + 8 * i, 80, i) for i in range(12)]
    expected = detector(images)
    assert len(expected) == 12 and all(len(found) for found in expected)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads meet inside every call
    try:
        with ThreadPoolExecutor(8) as pool:
            every = list(pool.map(lambda _: [detector(image) for image in images], range(8)))
    finally:
        sys.setswitchinterval(interval)
    for answers in every:
        for found, alone in zip(answers, expected):
            np.testing.assert_array_equal(found.boxes, alone.boxes)
            np.testing.assert_array_equal(found.scores, alone.scores)
            assert found.names == alone.names


def test_a_list_of_one_or_none_is_a_list(exported, picture):
    detector = Detector(exported, threads=1)
    assert detector([]) == []
    (found,) = detector([picture(48, 80)])
    np.testing.assert_array_equal(found.boxes, detector(picture(48, 80)).boxes)
