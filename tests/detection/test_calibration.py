"""Calibration of detectors: what they see, and that every kind of them goes through it."""

import copy
import fnmatch
import gc
import logging

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.poolers import ROIPooler
from PIL import Image
from torch import nn

from sparsedet.compress import (
    LayerPlan,
    Task,
    plan_for_targets,
    sparsify_,
)
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.profile import profile_layers
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.detection.images import load_images
from sparsedet.detection.load import load_model
from sparsedet.detection.pixel_file import PixelFile
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.layers import SparseFusionConv2d

ZOO = {
    "mask": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "C4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "rpn": "COCO-Detection/rpn_R_50_FPN_1x.yaml",
}
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.PIXEL_STD": [60.0, 60.0, 60.0],
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 24,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [16],
    "MODEL.RETINANET.NUM_CLASSES": 3,
    "MODEL.RETINANET.NUM_CONVS": 1,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 4,
}
LAYERS = ["*res4.1.conv?", "*res5.1.conv?", "*fpn_output3", "*rpn_head.conv", "*head*.fc1"]
LAYERS += ["*mask_fcn1", "*conv_fcn1", "*cls_subnet.0"]


def _detector(kind):
    cfg = load_config(model_zoo.get_config_file(ZOO[kind]), [x for kv in SMALL.items() for x in kv])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, module in model.named_modules():
        if name.endswith("conv3.norm"):  # random residuals would add up to too much
            module.weight.fill_(0.3)
    return model


def _images(count):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 64, 96), generator=generator, dtype=torch.uint8)
    return [[{"image": x, "height": 64, "width": 96}] for x in pixels]


def _pooled_boxes(model, run):
    """The boxes for which ``run`` pools features, call by call."""
    boxes = []
    poolers = [m for m in model.modules() if isinstance(m, ROIPooler)]
    handles = [
        pooler.register_forward_pre_hook(lambda m, args: boxes.append(args[1][0].tensor.clone()))
        for pooler in poolers
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return boxes


@pytest.mark.parametrize("kind, pooled", [("mask", [10, 4]), ("cascade", [10, 10, 10, 4])])
def test_heads_see_the_boxes_of_the_dense_model_whatever_the_trunk_has_become(kind, pooled):
    model, image = _detector(kind), _images(1)[0]
    task = DetectionTask([image])
    dense = _pooled_boxes(model, lambda: model(image))
    assert [len(boxes) for boxes in dense] == pooled
    for run in range(2):
        boxes = _pooled_boxes(model, lambda: task.forward(model, image))
        assert len(boxes) == len(dense)
        assert all(torch.equal(a, b) for a, b in zip(boxes, dense)), run
        for parameter in model.backbone.parameters():
            parameter.data.mul_(0.9).add_(0.01)
    changed = _pooled_boxes(model, lambda: model(image))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(changed, dense))


@pytest.mark.parametrize("kind", ZOO)
def test_detectors_of_every_kind(kind):
    model, images = _detector(kind), _images(2)
    task = DetectionTask(images)
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    include = [glob for glob in LAYERS if fnmatch.filter(attributes, glob)]
    profile = profile_layers(model, task, include, patterns=["rows", "whole"])
    assert all(layer.outputs for layer in profile.layers.values())
    compressible = sum(layer.options[0].weights for layer in profile.layers.values())
    plan = plan_for_targets(profile, {"params": 1 / (1 - 0.6 * compressible / profile.parameters)})
    assert len(plan) > len(profile.layers) / 2
    report = calibrate_(model, plan, task)
    assert set(report.layers) == set(plan)
    assert all(0 <= layer.error <= layer.error_alone for layer in report.layers.values())

    for name, module in model.named_modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert name not in attributes or name in plan or set(vars(module)) == attributes[name]
    with torch.no_grad():
        (output,) = model(images[0])
    found = output["proposals" if kind == "rpn" else "instances"]
    assert len(found) and all(
        getattr(value, "tensor", value).isfinite().all() for value in found.get_fields().values()
    )


def test_an_interrupted_run_leaves_no_hooks():
    model, image = _detector("mask"), _images(1)[0]
    model.roi_heads.mask_head.predictor.register_forward_hook(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        DetectionTask([image]).forward(model, image)
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1


def _interrupt(module, args, output):
    raise KeyboardInterrupt


def _bottleneck():
    """With batch norms as a trained network has them."""
    torch.manual_seed(0)
    block = BottleneckBlock(16, 32, bottleneck_channels=12, norm="FrozenBN")
    for conv in (block.conv1, block.conv2, block.conv3, block.shortcut):
        conv.norm.running_mean.normal_()
        conv.norm.running_var.uniform_(0.5, 2)
        conv.norm.weight.uniform_(0.5, 2)
        conv.norm.bias.normal_()
    return nn.Sequential(block).eval()


@pytest.mark.parametrize("sparsify", [sparsify_, calibrate_])
def test_bottlenecks_at_full_rank_are_exact(sparsify):
    model, x = _bottleneck(), torch.randn(2, 16, 9, 11)
    expected = model(x)
    names = ("conv1", "conv2", "conv3", "shortcut")
    plan = {f"0.{name}": LayerPlan((16,), "whole") for name in names}
    sparsify(model, plan, *([Task([x])] if sparsify is calibrate_ else []))
    assert all(type(model[0].get_submodule(name)) is SparseFusionConv2d for name in names)
    assert model[0].conv1.kernel_size == (1, 1)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


def test_bottlenecks_calibrated_are_better_than_from_the_weights_alone():
    dense = _bottleneck()
    mixing = torch.randn(16, 16) * 0.6 ** torch.arange(16)
    images = [torch.einsum("ij,njhw->nihw", mixing, torch.randn(2, 16, 9, 11)) for _ in range(6)]
    plan = {f"0.conv{i}": LayerPlan((5,), "whole") for i in (1, 3)}
    alone = sparsify_(copy.deepcopy(dense), plan)
    calibrated = copy.deepcopy(dense)
    calibrate_(calibrated, plan, Task(images[:4]))
    errors = [
        sum((model(x) - dense(x)).square().sum().item() for x in images[4:])
        for model in (alone, calibrated)
    ]
    assert errors[1] < 0.8 * errors[0]


@pytest.fixture
def photos(tmp_path):
    """Six of all kinds that people have in one folder, of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i, mode in enumerate(["RGB", "RGB", "L", "RGBA", "P", "CMYK"]):
        pixels = generator.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.{suffix}")
    (folder / "notes.txt").write_text("no image")
    return folder


def _config(channels="BGR"):
    cfg = load_config(model_zoo.get_config_file(ZOO["retinanet"]))
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT = 48, 64, channels
    return cfg


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_images_are_prepared_as_detectron2_does(photos, channels):
    images = load_images(_config(channels), str(photos), 100)
    assert len(images) == 6
    resize = T.ResizeShortestEdge([48, 48], 64)
    for image, file in zip(images, sorted(photos.glob("?.*"))):
        pixels = read_image(file, channels)
        expected = resize.get_transform(pixels).apply_image(pixels).transpose(2, 0, 1)
        (inputs,) = image
        np.testing.assert_array_equal(inputs["image"].numpy(), expected)
        assert (inputs["height"], inputs["width"]) == pixels.shape[:2]


def test_some_of_many_images_the_same_each_time(photos):
    first, again = ([_sizes(i) for i in load_images(_config(), str(photos), 3)] for _ in range(2))
    assert first == again and len(set(first)) == 3
    pattern = load_images(_config(), str(photos / "[0-2].png"), 100)
    assert [_sizes(image) for image in pattern] == [(40, 60), (41, 60), (42, 60)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_stored_images_come_back_as_they_were(dtype):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, 9, 5 + i), generator=generator).to(dtype) for i in range(3)]
    pixel_file = PixelFile()
    stored = [pixel_file.keep(image, height=9, width=i) for i, image in enumerate(images)]
    for i in (2, 0, 1, 1):
        assert torch.equal(stored[i]["image"], images[i]) and stored[i]["image"].dtype == dtype
        assert {**stored[i], "image": 0} == {"image": 0, "height": 9, "width": i}
        assert stored[i].get("instances") is None and len(stored[i]) == 3


def test_a_task_holds_no_pixels_however_many_images(photos):
    def tensors():
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    before = tensors()
    tasks = [DetectionTask.from_images(_config(), str(photos), count) for count in (1, 6)]
    assert [len(task.batches) for task in tasks] == [1, 6]
    assert tensors() == before


def _sizes(image):
    return image[0]["height"], image[0]["width"]


def test_images_that_cannot_be_read_are_counted(photos, caplog):
    for name in ("1.png", "2.png", "3.png"):
        (photos / name).write_bytes((photos / name).read_bytes()[:200])
    with caplog.at_level(logging.WARNING):
        assert len(load_images(_config(), str(photos), 100)) == 3
    assert "3 of 6 images cannot be used; first: " in caplog.text and "1.png" in caplog.text
    (photos / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match="4 of 6 images cannot be used; first: .*0.png: empty"):
        load_images(_config(), str(photos), 100)


def test_an_image_too_narrow_for_the_model_is_counted_as_well(photos, caplog):
    Image.effect_noise((5000, 1), 50).convert("RGB").save(photos / "line.png")
    images = load_images(_config(), str(photos), 100, smallest_side=8)
    assert len(images) == 6 and "1 of 7 images cannot be used; first: " in caplog.text
    assert "line.png: 5000 x 1 pixels are too narrow for the model" in caplog.text


@pytest.mark.parametrize("channels", ["L", "YUV-BT.601", "bgr", "HSV"])
def test_other_formats_of_images_are_refused_everywhere(photos, channels):
    with pytest.raises(InputError, match="INPUT.FORMAT: .*is not one of BGR, RGB"):
        load_images(_config(channels), str(photos), 100)
    with pytest.raises(InputError, match="INPUT.FORMAT: .*is not one of BGR, RGB"):
        load_model(_config(channels))
    with pytest.raises(InputError, match="INPUT.FORMAT: .*is not one of BGR, RGB"):
        load_config(model_zoo.get_config_file(ZOO["retinanet"]), ["INPUT.FORMAT", channels])


def test_images_of_one_colour_calibrate_nothing(photos, caplog):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (40, 30), (9, 9, 90)).save(photos / name)
    with caplog.at_level(logging.WARNING):
        assert len(load_images(_config(), str(photos), 100)) == 3
    assert "1.png: all of one colour" in caplog.text
    Image.new("L", (40, 30)).save(photos / "0.png")
    with pytest.raises(InputError, match="4 of 6 images cannot be used; first: .*0.png: all of"):
        load_images(_config(), str(photos), 100)


def test_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=f"{tmp_path}: no image in this folder"):
        load_images(_config(), str(tmp_path), 100)
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        load_images(_config(), str(tmp_path / "nowhere"), 100)


def test_by_default_those_of_training(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    generate_shapes(str(tmp_path / "shapes"), num_train=3, num_test=2, image_size=(128, 96))
    files = {"json": "shapes/annotations/trainval.json", "images": "shapes/JPEGImages"}
    (tmp_path / "shapes.yaml").write_text(
        f"DATASETS: {{TRAIN: [shapes_calibration], TEST: [], REGISTER: {{shapes_calibration: "
        f"{{format: coco, json: {files['json']}, images: {files['images']}}}}}}}\n"
    )
    cfg = load_config(str(tmp_path / "shapes.yaml"))
    assert len(load_images(cfg, None, 100)) == 3
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(InputError, match="DATASETS.TRAIN: no images there"):
        load_images(cfg, None, 100)
    cfg.DATASETS.TRAIN = ("coco_2014_minival",)
    with pytest.raises(InputError, match="DATASETS.TRAIN: .*minival.*; name a folder of images"):
        load_images(cfg, None, 100)
