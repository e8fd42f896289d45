"""Seven kinds of networks, in small form, go the whole road."""

from functools import partial

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torchvision import models

import sparsedet
from sparsedet.classification.task import ClassificationTask
from sparsedet.compress import even_plan, plan_to_entries
from sparsedet.modeling.networks import OWN, VGGWithGlobalPooling

CLASSES = [f"class {i}" for i in range(5)]
NARROW = 8  # by which channels are divided


def narrowed(build, num_classes, without=(), **options):
    """A network of torchvision with an eighth of its channels, and without some blocks."""
    with torch.device("meta"):  # what is large is never made
        network = build(num_classes=num_classes, **options)
    for name in without:
        setattr(network, name, nn.Identity())
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                inputs = (
                    child.in_channels if child.in_channels == 3 else child.in_channels // NARROW
                )
                layer = nn.Conv2d(
                    inputs, child.out_channels // NARROW, child.kernel_size, child.stride,
                    child.padding, groups=max(1, child.groups // NARROW), bias=False,
                )  # fmt: skip
            elif isinstance(child, nn.BatchNorm2d):
                layer = nn.BatchNorm2d(child.num_features // NARROW)
            elif isinstance(child, nn.Linear):
                layer = nn.Linear(child.in_features // NARROW, num_classes)
            else:
                continue
            setattr(parent, name, layer)
    return network


def small_vgg(num_classes):
    network = VGGWithGlobalPooling(width_multiplier=0.125)
    network.classifier = nn.Identity()
    fully = [nn.Linear(64 * 4, 48), nn.ReLU(), nn.Dropout(), nn.Linear(48, num_classes)]
    return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *fully)


def small_densenet(num_classes):
    return models.DenseNet(8, (2, 2, 2, 2), 16, bn_size=2, num_classes=num_classes)


def small_vit(num_classes):
    return models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=128,
        num_classes=num_classes,
    )  # fmt: skip


REPEATED = {  # blocks that are as others are
    "googlenet": ["inception4b", "inception4c", "inception5a"],
    "inception_v3": ["Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"],
}
PLAIN = {"aux_logits": False, "init_weights": False}
# Builder, pixels of the image, layers of several kinds that are to become compact.
NETWORKS = {
    "vgg16": (small_vgg, 32, ["0.7", "3"]),
    "resnet50": (
        partial(narrowed, partial(models.ResNet, models.resnet.Bottleneck, [1, 1, 1, 1])),
        32,
        ["layer1.0.conv2", "layer4.0.conv3", "layer2.0.downsample.0"],
    ),
    "googlenet": (
        partial(narrowed, models.GoogLeNet, without=REPEATED["googlenet"], **PLAIN),
        48,
        ["inception4a.branch2.1.conv", "inception3b.branch1.conv"],
    ),
    "densenet121": (small_densenet, 32, ["features.denseblock2.denselayer1.conv2"]),
    "inception_v3": (
        partial(narrowed, models.Inception3, without=REPEATED["inception_v3"], **PLAIN),
        75,
        ["Mixed_6b.branch7x7_2.conv", "Mixed_5b.branch5x5_2.conv"],
    ),
    "mobilenet_v2": (partial(narrowed, models.mobilenet_v2), 32, ["features.8.conv.0.0"]),
    "vit": (small_vit, 32, ["encoder.layers.encoder_layer_1.mlp.0"]),
}


@pytest.fixture(params=list(NETWORKS))
def dense(request, config_text, tmp_path, monkeypatch):
    """A dense classifier of random weights, images for it, and names of layers."""
    builder, size, layers = NETWORKS[request.param]
    monkeypatch.setitem(OWN, "small_cnn", builder)
    text = config_text.replace("NUM_CLASSES: 3, SIZE: 32", f"NUM_CLASSES: 5, SIZE: {size}")
    text = text.replace("[colours_train]", "[]").replace("[colours_val]", "[]")
    path = tmp_path / "small.yaml"
    path.write_text(text)
    torch.manual_seed(0)
    model = build_model(cfg := sparsedet.load_config(path)).eval()
    model.cfg, model.class_names = cfg, CLASSES
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, size, size), generator=generator, dtype=torch.uint8)
    return model, images, [f"network.{name}" for name in layers]


def test_the_whole_road(dense, tmp_path):
    model, images, layers = dense
    batches = [[{"image": image} for image in images[:2]]]
    last = model.last_layer()
    plan = even_plan(model, 2, exclude=[last])
    assert set(layers) <= set(plan)
    weights = {name: model.get_submodule(name).weight.numel() for name in plan}
    result = sparsedet.compress_(
        model, task=ClassificationTask(batches, model.cfg), plan=plan_to_entries(plan)
    )
    for name, layer in result.layers.items():
        assert layer.weights[0] == weights[name]
        assert 2 * layer.weights[1] <= layer.weights[0] or set(layer.plan.ranks) == {1}
    depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert not depthwise or all(m.groups == m.in_channels for m in depthwise)

    model.train()
    loss = model([{"image": x, "label": i % 5} for i, x in enumerate(images)])["loss_cls"]
    loss.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.step()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.get_submodule(last).weight.grad.any()

    folder = tmp_path / "compact"
    folder.mkdir()
    result.task.save(result, str(folder), str(folder))
    loaded = sparsedet.load_model(folder / "config.yaml", folder / "model.pth")
    with torch.no_grad():
        expected = model.eval()([{"image": images[0]}])[0]["probabilities"]
        found = loaded([{"image": images[0]}])[0]["probabilities"]
    torch.testing.assert_close(found, expected)
    assert loaded.class_names == CLASSES

    apart = sparsedet.export(loaded, tmp_path / "compact.onnx")
    assert apart.probability < 1e-4
    classify = sparsedet.Classifier(tmp_path / "compact.onnx")
    picture = images[0].permute(1, 2, 0).numpy()[:, :, ::-1]
    # Nothing is resized: the picture is as large as what the network sees.
    object.__setattr__(classify.info, "shorter_side", classify.info.size)
    answer = classify(np.ascontiguousarray(picture))
    by_class = np.empty(5)
    by_class[answer.classes] = answer.probabilities
    np.testing.assert_allclose(by_class, expected.numpy(), atol=1e-4)


def test_planned(dense):
    model, images, _ = dense
    task = ClassificationTask([[{"image": image} for image in images[:2]]], model.cfg)
    result = sparsedet.compress_(model, task=task, params=2, flops=2)
    assert result.parameters[0] >= 2 * result.parameters[1]
    assert result.multiply_adds[0] >= 2 * result.multiply_adds[1]
    assert not [note for note in result.notes if "was asked" in note]
    with torch.no_grad():
        (found,) = model([{"image": images[0]}])
    assert found["probabilities"].sum() == pytest.approx(1, abs=1e-4)
