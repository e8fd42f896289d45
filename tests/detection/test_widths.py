"""A detector whose layers became narrower is the same when saved, loaded, exported, optimized."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sparsedet.api import compress_
from sparsedet.compress import layer_times
from sparsedet.compress.links import Link, find_links
from sparsedet.detection.load import load_model
from sparsedet.detection.predictor import Predictor
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.exporting.api import export
from sparsedet.exporting.optimize import optimize_for_inference
from sparsedet.runtime.detector import Detector


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times, "SECONDS", 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        Image.fromarray(picture(64, 96, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def narrow(kitchen, photos, tmp_path_factory):
    """The detector, its result, and the folder that it was saved to."""
    model = load_model(kitchen / "config.yaml", kitchen / "model.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_times, "SECONDS", 0)
        result = compress_(model, images=photos, num_images=6, flops=3, width=True)
    folder = tmp_path_factory.mktemp("narrow") / "compact"
    result.save(folder)
    return model, result, folder


def test_which_layers_of_a_detector_have_one_reader(kitchen, photos):
    model = load_model(kitchen / "config.yaml", kitchen / "model.pth")
    links, reasons = find_links(model, DetectionTask.from_images(model.cfg, str(photos), 1))
    trunk = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2"]
    expected = {f"backbone.{a}": Link(f"backbone.{b}") for a, b in zip(trunk, trunk[1:])}
    head = "roi_heads.box_head."
    assert links == {**expected, f"{head}fc6": Link(f"{head}fc7")}
    assert reasons["backbone.conv5_2"].startswith("2 layers read it: proposal_generator")


def test_saved_and_loaded(narrow, photos):
    model, result, folder = narrow
    assert any("out_channels" in entry for entry in result.plan.values())
    assert result.multiply_adds[0] / result.multiply_adds[1] >= 3
    loaded = load_model(folder / "config.yaml")
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(x, state[name]) for name, x in loaded.state_dict().items())
    image = np.array(Image.open(photos / "0.png"))
    expected, found = (Predictor.of(m)(image)["instances"] for m in (model, loaded))
    assert torch.equal(expected.pred_boxes.tensor, found.pred_boxes.tensor)
    assert torch.equal(expected.scores, found.scores)


def test_exported_and_optimized(narrow, photos, tmp_path):
    model, _, folder = narrow
    export(model, tmp_path / "narrow.onnx")
    detector = Detector(tmp_path / "narrow.onnx")
    image = np.array(Image.open(photos / "1.png"))[:, :, ::-1].copy()
    expected = Predictor.of(model)(image)["instances"]
    answer = detector(image)
    assert len(answer) == len(expected) > 0
    assert answer.scores == pytest.approx(expected.scores.numpy(), abs=1e-4)
    faster = Predictor.of(optimize_for_inference(load_model(folder / "config.yaml")))
    found = faster(image)["instances"]
    assert found.scores.numpy() == pytest.approx(expected.scores.numpy(), abs=1e-4)


def test_quantized(narrow, photos, tmp_path):
    model, _, _ = narrow
    export(model, tmp_path / "narrow.onnx", precision="int8", images=photos)
    image = np.array(Image.open(photos / "1.png"))[:, :, ::-1].copy()
    found = Detector(tmp_path / "narrow.onnx")(image)
    expected = Predictor.of(model)(image)["instances"]
    assert found.scores[0] == pytest.approx(expected.scores[0].item(), abs=0.1)


def test_a_plan_that_narrows_what_several_layers_read(kitchen, photos):
    model = load_model(kitchen / "config.yaml", kitchen / "model.pth")
    for name in ("backbone.conv5_2", "proposal_generator.rpn_head.conv"):
        with pytest.raises(InputError, match=f"plan entry '{name}': .* 2 layers read it"):
            compress_(model, images=photos, num_images=1, plan={name: {"out_channels": 8}})


def test_a_config_whose_widths_do_not_fit_its_weights(narrow, tmp_path):
    _, result, folder = narrow
    config = yaml.safe_load((folder / "config.yaml").read_text())
    name = next(n for n, entry in result.plan.items() if "out_channels" in entry)
    config["MODEL"]["SPARSE_FUSION"]["PLAN"][name]["out_channels"] -= 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError) as error:
        load_model(tmp_path / "config.yaml")
    assert "\n" not in str(error.value)
