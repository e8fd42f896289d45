"""Class activation maps, their boxes, and ILSVRC's errors."""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torchvision.ops import masks_to_boxes

import sparsedet
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.classification.cam import ActivationMaps, box_of, heat
from sparsedet.classification.localization import Located, errors, localize
from sparsedet.classification.records import labelled_records
from sparsedet.errors import InputError
from sparsedet.model_zoo import get_config_file
from sparsedet.modeling import ImageClassifier
from sparsedet.modeling.networks import OWN, VGGWithGlobalPooling, build_network

CLASSES = ["circle", "square", "triangle", "star", "ring", "cross"]


def classifier(network):
    return ImageClassifier(network, pixel_mean=[0] * 3, pixel_std=[60] * 3, input_format="RGB")


def image(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["vgg16_gap", "resnet18", "densenet121", "mobilenet_v2"])
def test_a_map_is_the_gradient_times_the_features(name):
    """Grad-CAM (arXiv 1610.02391) is the same where pooling comes last; autograd knows it."""
    torch.manual_seed(0)
    small = VGGWithGlobalPooling(7, 0.125) if name == "vgg16_gap" else build_network(name, 7)
    model = classifier(small).eval()
    x = image(64, 96)
    probabilities, maps = ActivationMaps(model)(x)
    last = dict(model.network.named_modules())
    module = {
        "vgg16_gap": lambda: last["features"],
        "resnet18": lambda: last["layer4"],
        "densenet121": lambda: last["features"],
        "mobilenet_v2": lambda: last["features"],
    }[name]()
    kept = []
    # A copy: DenseNet works in place on what this gives.
    handle = module.register_forward_hook(lambda m, a, y: kept.append(y) or y.clone())
    logits = model.network(model.normalize(x[None]))
    handle.remove()
    features = kept[0]
    for k in (0, 6):
        (gradient,) = torch.autograd.grad(logits[0, k], features, retain_graph=True)
        positive = features.relu() if name == "densenet121" else features
        expected = (gradient.mean((2, 3), keepdim=True) * positive)[0].sum(0)
        if name != "densenet121":  # whose ReLU takes part of the gradient
            torch.testing.assert_close(
                torch.from_numpy(maps[k]) / maps[0].size, expected.detach(), atol=1e-5, rtol=1e-3
            )
        bias = model.get_submodule(model.last_layer()).bias[k].item()
        assert maps[k].mean() + bias == pytest.approx(logits[0, k].item(), abs=1e-3)
    assert probabilities == pytest.approx(logits.softmax(1)[0].detach().numpy(), abs=1e-5)


def test_a_network_without_global_pooling_has_no_maps():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 3))
    with pytest.raises(InputError, match="does not end in global average pooling"):
        ActivationMaps(classifier(network).eval())(image(32, 32))


def test_the_box_is_that_of_the_largest_part():
    hot = np.zeros((40, 60), np.float32)
    hot[5:9, 3:8] = 1.0  # higher, but smaller
    hot[20:35, 30:50] = 0.5
    hot[19, 29] = 0.3  # touches a corner
    hot[0, 59] = 0.2  # not above the threshold
    assert box_of(hot).tolist() == [29, 19, 50, 35]
    largest = torch.zeros(1, 40, 60, dtype=torch.bool)
    largest[0, 20:35, 30:50] = True
    x0, y0, x1, y1 = masks_to_boxes(largest)[0].tolist()  # which includes the last pixel
    assert box_of(hot, 0.4).tolist() == [x0, y0, x1 + 1, y1 + 1]


def test_heat_is_from_0_to_1_at_the_size_of_the_image():
    hot = heat(np.array([[-3.0, 1.0], [0.0, 5.0]]), 20, 30)
    assert hot.shape == (20, 30) and hot.min() == 0 and hot.max() == 1
    assert hot[0, 0] == 0 and hot[-1, -1] == 1
    assert box_of(heat(np.full((2, 2), 4.0), 20, 30)).tolist() == [0, 0, 30, 20]


def located(classes, overlaps, label):
    return Located(classes, None, None, None, np.array(overlaps), label)


def test_errors_are_those_of_ilsvrc():
    images = [
        located([1, 0, 2], [0.6, 0.1, 0.1, 0.6], 1),  # all right
        located([0, 1, 2], [0.9, 0.5, 0.1, 0.5], 1),  # second guess, just enough overlap
        located([1, 0, 2], [0.4, 0.9, 0.9, 0.4], 1),  # the class, but not the place
        located([0, 2, 3], [0.9, 0.9, 0.9, 0.8], 1),  # the place, if the class is told
    ]
    assert errors(images) == {
        "class top1": 50, "class top5": 25, "top1": 75, "top5": 50, "known": 25,
    }  # fmt: skip


@pytest.fixture
def trained(shapes, tmp_path, monkeypatch):
    """A small VGG with global pooling, its weights random, and the config that loads it."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    monkeypatch.setitem(
        OWN, "small_gap", lambda num_classes: VGGWithGlobalPooling(num_classes, 0.125)
    )
    path = tmp_path / "dense" / "config.yaml"
    path.parent.mkdir()
    entry = f"{{format: voc, root: shapes, classes: {CLASSES}, split: "
    path.write_text(f"""
_BASE_: {get_config_file("Base-Classifier.yaml")}
MODEL:
  DEVICE: cpu
  WEIGHTS: {tmp_path}/dense/model.pth
  CLASSIFIER: {{NAME: small_gap, NUM_CLASSES: 6, SIZE: 64}}
INPUT: {{MIN_SIZE_TEST: 72}}
DATASETS:
  TRAIN: [shapes_all]
  TEST: [shapes_few]
  REGISTER: {{shapes_all: {entry}trainval}}, shapes_few: {entry}test}}}}
""")
    torch.manual_seed(0)
    model = build_model(sparsedet.load_config(path))
    model.class_names = CLASSES
    SparseDetCheckpointer(model, str(path.parent)).save("model")
    return path


def test_the_main_class_is_that_of_the_largest_box(trained):
    sparsedet.load_config(trained)
    from detectron2.data import DatasetCatalog

    for record, full in zip(
        labelled_records("shapes_all", CLASSES), DatasetCatalog.get("shapes_all")
    ):
        area = lambda o: (o["bbox"][2] - o["bbox"][0]) * (o["bbox"][3] - o["bbox"][1])  # noqa: E731
        main = max(full["annotations"], key=area)
        assert record["label"] == main["category_id"] and main["bbox"] in record["boxes"]
        same = [a["bbox"] for a in full["annotations"] if a["category_id"] == record["label"]]
        assert record["boxes"] == same


def test_dense_beside_compact_by_one_command(trained, run_tool, tmp_path):
    dense = sparsedet.load_model(trained)
    result = sparsedet.compress_(
        dense, plan={"network.features.2": {"pattern": "quad", "ratio": 2}}, num_images=3
    )
    result.save(tmp_path / "compact")
    arguments = ["--config-file", trained, tmp_path / "compact" / "config.yaml", "--pictures", 2]
    status, errors = run_tool("localize.py", *arguments, "--output", tmp_path / "found")
    assert status == 0, errors[-1]
    report = json.loads((tmp_path / "found" / "localization.json").read_text())
    assert list(report["errors"]) == ["dense", "compact"]
    for model in report["errors"].values():
        assert model["images"] == 2
        assert model["class top5"] <= model["class top1"] <= model["top1"] <= 100
        assert model["top5"] <= model["top1"]
    assert cv2.imread(str(tmp_path / "found" / "maps.png")) is not None


def test_what_cannot_be_localized(trained, folder):
    model = sparsedet.load_model(trained)
    bare = {"file_name": str(folder / "val" / "red" / "0.png"), "label": 0}
    with pytest.raises(InputError, match="red/0.png: has no boxes, which localization needs"):
        next(localize(model, [bare]))
    other = {**bare, "boxes": [[0, 0, 5, 5]], "width": 9, "height": 9}
    with pytest.raises(InputError, match="48 x 40 pixels, but its boxes are of 9 x 9"):
        next(localize(model, [other]))
