"""A classifier's network as a detector's backbone: the same features, and training from there."""

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from torch import nn
from torchvision import models

import sparsedet
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.classification.backbones import classifier_backbone
from sparsedet.compress import even_plan, plan_to_entries, sparsify_
from sparsedet.detection.config import compact_config
from sparsedet.errors import InputError
from sparsedet.layers import SparseFusionConv2d
from sparsedet.model_zoo import get_config_file
from sparsedet.modeling import ImageClassifier
from sparsedet.modeling.networks import OWN, VGGWithGlobalPooling


def small_vgg_bn(num_classes):
    """As torchvision's vgg16_bn; convolutions have a bias, too."""
    network = VGGWithGlobalPooling(num_classes, 0.125)
    layers = []
    for layer in network.features:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    network.features = nn.Sequential(*layers)
    return network


def small_resnet(num_classes):
    return models.ResNet(
        models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=num_classes, width_per_group=4
    )


NETWORKS = {
    "vgg": lambda num_classes: VGGWithGlobalPooling(num_classes, 0.125),
    "vgg_bn": small_vgg_bn,
    "resnet": small_resnet,
}
C4 = """
_BASE_: {base}
MODEL:
  DEVICE: cpu
  ROI_HEADS: {{NUM_CLASSES: 6}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
  BACKBONE: {{FREEZE_AT: 0}}
"""
FPN = """
MODEL:
  DEVICE: cpu
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {{NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}}
  RESNETS: {{OUT_FEATURES: [res2, res3, res4, res5]}}
  FPN: {{IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 16}}
  ANCHOR_GENERATOR: {{SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}}
  RPN: {{IN_FEATURES: [p2, p3, p4, p5, p6]}}
  ROI_HEADS: {{NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], NUM_CLASSES: 6}}
  ROI_BOX_HEAD: {{NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 16, POOLER_RESOLUTION: 3}}
INPUT: {{FORMAT: RGB}}
"""


def detector_text(name):
    base = get_config_file("Base-RCNN-VGG-16.yaml")
    return (C4 if name.startswith("vgg") else FPN).format(base=base)


@pytest.fixture
def classifier(request, config_text, tmp_path, monkeypatch):
    """A folder with a compact classifier: config.yaml and model.pth; and the model."""
    name = request.param
    monkeypatch.setitem(OWN, "small_cnn", NETWORKS[name])
    path = tmp_path / "classifier.yaml"
    path.write_text(config_text)
    torch.manual_seed(0)
    model = build_model(cfg := sparsedet.load_config(path)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    model.cfg, model.class_names = cfg, ["blue", "green", "red"]
    SparseDetCheckpointer(model, str(tmp_path)).save("dense")
    plan = even_plan(model, 2, exclude=[model.last_layer()])
    compact = tmp_path / "compact"
    compact.mkdir()
    text = compact_config(cfg, plan_to_entries(plan), str(compact)).dump()
    (compact / "config.yaml").write_text(text)
    SparseDetCheckpointer(sparsify_(model, plan), str(compact)).save("model")
    return name, model


@pytest.mark.parametrize("classifier", list(NETWORKS), indirect=True)
@pytest.mark.parametrize("compact", [True, False])
def test_the_backbone_gives_the_same_features(classifier, compact, run_tool, tmp_path):
    name, model = classifier
    (tmp_path / "detector.yaml").write_text(detector_text(name))
    source = [tmp_path / "compact" / "model.pth"]
    if not compact:
        source = [tmp_path / "dense.pth", "--config-file", tmp_path / "classifier.yaml"]
        model = sparsedet.load_model(tmp_path / "classifier.yaml", tmp_path / "dense.pth")
    status, errors = run_tool(
        "convert_vgg.py", source[0], tmp_path / "backbone.pth", *source[1:],
        "--detector", tmp_path / "detector.yaml",
    )  # fmt: skip
    assert status == 0, errors[-1]
    cfg = sparsedet.load_config(tmp_path / "backbone.yaml")
    detector = build_model(cfg).eval()
    SparseDetCheckpointer(detector).load(cfg.MODEL.WEIGHTS)
    sparse = [m for m in detector.backbone.modules() if isinstance(m, SparseFusionConv2d)]
    assert bool(sparse) == compact
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    x = detector.preprocess_image([{"image": image}]).tensor
    model.eval()
    torch.testing.assert_close(x, model.normalize(image[None]))
    with torch.no_grad():
        if name.startswith("vgg"):
            found, expected = detector.backbone(x)["conv5"], model.network.features(x)
        else:
            found = detector.backbone.bottom_up(x)["res5"]
            expected = nn.Sequential(*list(model.network.children())[:-2])(x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("classifier", ["vgg"], indirect=True)
def test_a_detector_trains_from_a_compact_classifier(classifier, run_tool, tmp_path, write_config):
    text = yaml.safe_load(detector_text("vgg"))
    text["DATASETS"] = yaml.safe_load(
        """
TRAIN: [shapes_all]
TEST: []
REGISTER:
  shapes_all: {format: voc, root: shapes, split: trainval,
    classes: [circle, square, triangle, star, ring, cross]}
"""
    )
    text["SOLVER"] = {"IMS_PER_BATCH": 2, "MAX_ITER": 2, "STEPS": [], "BASE_LR": 0.001}
    text["INPUT"] = {"MIN_SIZE_TRAIN": [64], "MAX_SIZE_TRAIN": 128}
    text["DATALOADER"] = {"NUM_WORKERS": 0}
    path = write_config(yaml.safe_dump(text), "detector.yaml")
    status, errors = run_tool(
        "convert_vgg.py", tmp_path / "compact" / "model.pth", tmp_path / "backbone.pth",
        "--detector", path,
    )  # fmt: skip
    assert status == 0, errors[-1]
    output = ["OUTPUT_DIR", tmp_path / "output"]
    status, errors = run_tool("train_net.py", "--config-file", tmp_path / "backbone.yaml", *output)
    assert status == 0, errors[-1]
    before = torch.load(tmp_path / "backbone.pth", weights_only=True)["model"]
    after = torch.load(tmp_path / "output" / "model_final.pth", weights_only=True)["model"]
    key = "conv5_3.fusion.weight"
    moved = (after[f"backbone.{key}"] - before[key]).abs().max()
    assert 0 < moved < 0.1 * before[key].abs().max()  # trained on from where it was
    assert before["conv1_1.weight"].shape == after["backbone.conv1_1.weight"].shape


@pytest.mark.parametrize("classifier", ["vgg"], indirect=True)
def test_what_cannot_be_converted(classifier, run_tool, tmp_path):
    source = tmp_path / "compact" / "model.pth"
    status, errors = run_tool("convert_vgg.py", source, tmp_path / "backbone.pth")
    assert status == 1 and "has compact layers" in errors[-1] and "--detector" in errors[-1]
    assert not (tmp_path / "backbone.pth").exists()
    model = ImageClassifier(
        models.squeezenet1_1(), pixel_mean=[0] * 3, pixel_std=[1] * 3, input_format="RGB"
    )
    model.network.features = nn.ModuleList()
    with pytest.raises(InputError, match="only a VGG and a ResNet"):
        classifier_backbone(model, {})
