"""Targets count where the config tests the model, whatever the size of the calibration's images."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from sparsedet.api import compress_
from sparsedet.benchmark.counting import count_call
from sparsedet.compress import layer_times
from sparsedet.detection.config import load_config
from sparsedet.detection.images import load_images
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError

FLOPS = 1.5
LAYERS = ["backbone.conv[34]_*", "roi_heads.box_head.fc?"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(picture(96, 129, seed)).save(folder / f"{seed}.png")
    return str(folder)


@pytest.fixture(scope="module")
def detector(kitchen):
    """Tested at 192; at half of it, its fully connected layers are a larger part of the whole."""
    sizes = ["INPUT.MIN_SIZE_TEST", 192, "INPUT.MAX_SIZE_TEST", 320]
    heads = ["MODEL.RPN.POST_NMS_TOPK_TEST", 60, "MODEL.ROI_BOX_HEAD.FC_DIM", 128]
    cfg = load_config(str(kitchen / "config.yaml"), [*sizes, *heads])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    return model


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times, "SECONDS", 0)


@torch.no_grad()
def work(model, images):
    """Multiply-adds by PyTorch's own counter."""
    return sum(count_call(model, image)[0] for image in images) / len(images)


def test_a_plan_from_smaller_images_meets_its_target_at_the_size_of_the_test(detector, photos):
    model = copy.deepcopy(detector)
    result = compress_(model, images=photos, num_images=3, min_size=96, flops=FLOPS, include=LAYERS)
    calibrated_on = {tuple(image["image"].shape[1:]) for [image] in result.task.batches}
    assert calibrated_on == {(96, 129)}

    tested = load_images(detector.cfg, photos, 3)
    assert tested[0][0]["image"].shape[1:] == (192, 258)
    before, after = work(detector, tested), work(model, tested)
    assert before / after == pytest.approx(FLOPS, rel=0.01)
    assert result.multiply_adds == pytest.approx((before, after), rel=0.01)
    small = [work(m, result.task.batches) for m in (detector, model)]
    assert small[0] / small[1] != pytest.approx(FLOPS, rel=0.05)


def test_the_counts_are_those_of_calibration_at_the_size_of_the_test(detector, photos):
    plan = {"backbone.conv3_1": {"pattern": "rows", "ranks": [8, 8]}}
    results = [
        compress_(copy.deepcopy(detector), images=photos, num_images=3, min_size=size, plan=plan)
        for size in (96, 192)
    ]
    small, large = (r.layers["backbone.conv3_1"] for r in results)
    assert small.outputs == large.outputs == 48 * 64
    assert results[0].multiply_adds == pytest.approx(results[1].multiply_adds, rel=0.01)
    assert small.error != large.error


def test_at_the_size_of_the_test_nothing_is_enlarged(detector, photos):
    task = DetectionTask.from_images(detector.cfg, photos, 3)
    assert task.deployed is task
    smaller = DetectionTask.from_images(detector.cfg, photos, 3, min_size=48).batches
    without_config = DetectionTask(smaller)
    assert without_config.deployed is without_config
    deployed = DetectionTask(smaller, detector.cfg).deployed
    assert {tuple(image["image"].shape) for [image] in deployed.batches} == {(3, 192, 258)}
    assert deployed.deployed is deployed


def test_other_images_are_deployed_in_their_own_sizes(detector):
    """Also where those of the first have been looked at."""
    wide, high = ([{"image": torch.zeros(3, *size)}] for size in ((96, 129), (129, 96)))
    task = DetectionTask([wide], detector.cfg)
    [[first]] = task.deployed.batches
    [[other]] = task.on([high]).deployed.batches
    assert first["image"].shape == (3, 192, 258) and other["image"].shape == (3, 258, 192)


def test_the_longer_side_shrinks_in_proportion(detector, tmp_path, picture):
    Image.fromarray(picture(60, 240)).save(tmp_path / "wide.png")
    [[image]] = load_images(detector.cfg, str(tmp_path), 1, min_size=96)
    assert image["image"].shape[1:] == (40, 160)


@pytest.mark.parametrize("size", [0, -1, 193])
def test_sizes_that_are_not_smaller(detector, photos, size):
    with pytest.raises(InputError, match=f"min_size is {size}; it must be from 1 to 192"):
        compress_(detector, images=photos, min_size=size, flops=2)
    with pytest.raises(InputError, match="batches have their size"):
        compress_(detector, batches=[[]], min_size=size, flops=2)
