"""tools/research/prune.py: a pruned detector reaches its target, loads and trains."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from sparsedet.benchmark.counting import count_multiply_adds
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.detection.images import load_images
from sparsedet.detection.load import load_model
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.modeling import VGG

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  DEVICE: cpu
  BACKBONE: {{FREEZE_AT: 5}}
  VGG: {{WIDTH_MULTIPLIER: 0.25, NORM: ''}}
  ROI_BOX_HEAD: {{FC_DIM: 64}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 4, STEPS: [], BASE_LR: 0.001}}
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A detector of which every other channel is dead, except the last convolution's."""
    folder = tmp_path_factory.mktemp("prune")
    generate_shapes(str(folder / "shapes"), num_train=6, num_test=2, image_size=(96, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder))
        (folder / "dense.yaml").write_text(CONFIG)
        torch.manual_seed(0)
        model = build_model(load_config(str(folder / "dense.yaml")))
    *convs, _ = model.backbone.children()
    for layer in (*convs, *model.roi_heads.box_head.children()):
        layer.weight.data[::2] = 0
        torch.nn.init.uniform_(layer.bias.data[1::2], 0, 0.1)
    torch.save({"model": model.state_dict()}, folder / "dense.pth")
    return folder


@pytest.fixture
def prune(run_tool, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))

    def run(factor, *arguments):
        given = ["--config-file", folder / "dense.yaml", "--weights", folder / "dense.pth"]
        given += ["--images", folder / "shapes" / "JPEGImages", "--output", tmp_path / "pruned"]
        return run_tool("research/prune.py", *given, "--target-flops", factor, *arguments)

    return run


def _model(path, *opts):
    return load_model(load_config(str(path), [str(opt) for opt in opts]))


def test_dead_channels_go_first_and_nothing_is_lost(prune, run_tool, folder, tmp_path):
    pytest.importorskip("torch_pruning")
    status, lines = prune("2x")
    assert status == 0, lines
    dense = _model(folder / "dense.yaml", "MODEL.WEIGHTS", folder / "dense.pth")
    pruned = _model(tmp_path / "pruned" / "config.yaml")
    before, after = (count_multiply_adds(model, 64, 96, 10) for model in (dense, pruned))
    assert 2 <= sum(before.values()) / sum(after.values()) < 3
    assert before["rpn_head"] == after["rpn_head"] and before["box_head"] > after["box_head"]
    for (name, conv), twin in zip(dense.backbone.named_children(), pruned.backbone.children()):
        last = name == "conv4_2"
        assert conv.out_channels // 2 <= twin.out_channels <= conv.out_channels - 8 * (not last)
    image = 100 * torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, features = (model.backbone(image)["conv4"] for model in (dense, pruned))
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * expected.max().item())
        pooled = expected[:, :, :7, :7]
        expected, answers = (
            torch.cat(model.roi_heads.box_predictor(model.roi_heads.box_head(pooled)), dim=1)
            for model in (dense, pruned)
        )
        torch.testing.assert_close(answers, expected, rtol=1e-2, atol=1e-2 * expected.max().item())

    config, out = tmp_path / "pruned" / "config.yaml", tmp_path / "out"
    status, lines = run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", out)
    assert status == 0, lines
    assert (out / "model_final.pth").is_file()


def test_a_global_ranking_takes_other_shares_of_the_layers(prune, folder, tmp_path):
    pytest.importorskip("torch_pruning")
    status, lines = prune("3x", "--global-ranking")
    assert status == 0, lines
    dense = _model(folder / "dense.yaml", "MODEL.WEIGHTS", folder / "dense.pth")
    pruned = _model(tmp_path / "pruned" / "config.yaml")
    before, after = (count_multiply_adds(model, 64, 96, 10) for model in (dense, pruned))
    assert sum(before.values()) > 2.5 * sum(after.values())  # here of more proposals
    convs = zip(dense.backbone.children(), pruned.backbone.children())
    kept = [twin.out_channels / conv.out_channels for conv, twin in convs]
    assert kept[-1] == 1 and len(set(kept)) > 2 and min(kept) >= 1 / 16


def test_the_rest_is_fitted_to_the_dense_outputs(folder, monkeypatch):
    pytest.importorskip("torch_pruning")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    spec = importlib.util.spec_from_file_location("prune", ROOT / "tools" / "research" / "prune.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    cfg = load_config(str(folder / "dense.yaml"))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    *images, unseen = load_images(cfg, str(folder / "shapes" / "JPEGImages"), 8)
    dense = copy.deepcopy(model)
    outputs = dict.fromkeys(tool.layers_to_prune(model), 6.0)
    kept = tool.prune_channels(model, outputs, 3.0)
    taken = torch.arange(3)
    for (name, conv), original in zip(model.backbone.named_children(), dense.backbone.children()):
        assert torch.equal(conv.weight, original.weight[kept[f"backbone.{name}"]][:, taken])
        taken = kept[f"backbone.{name}"]
    fc6, fc7 = (kept[f"roi_heads.box_head.{name}"] for name in ("fc6", "fc7"))
    original = dense.roi_heads.box_head.fc7.weight
    assert torch.equal(model.roi_heads.box_head.fc7.weight, original[fc7][:, fc6])

    def error():
        with torch.no_grad():
            x = model.preprocess_image(unseen).tensor
            expected, features = (m.backbone(x)["conv4"] for m in (dense, model))
        return ((features - expected).square().sum() / expected.square().sum()).item()

    before = error()
    tool.refit(model, dense, kept, outputs, DetectionTask(images))
    assert error() < before / 4


def test_channels_of_a_vgg():
    vgg = VGG(11, channels=[3, 5, 7, 9, 11, 13], out_features=["conv3", "conv4"])
    shapes = {name: shape.channels for name, shape in vgg.output_shape().items()}
    assert shapes == {"conv3": 9, "conv4": 13}
    assert [f.shape[1] for f in vgg(torch.zeros(1, 3, 16, 16)).values()] == [9, 13]
    for channels in ([3, 5, 7], [3, 5, 7, 9, 11, 0], [3, 5, 7, 9, 11, "13"]):
        with pytest.raises(InputError, match="MODEL.VGG.CHANNELS: .* must be 6 positive numbers"):
            VGG(11, channels=channels, out_features=["conv4"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["1000x"], "--target-flops 1000x: out of reach; at most"),
        (["2x", "MODEL.VGG.NORM", "BN"], "only build_vgg_backbone without NORM"),
        (["2x", "MODEL.BACKBONE.NAME", "build_sparse_vgg_backbone"], "only build_vgg_backbone"),
        (["2x", "MODEL.RPN.HEAD_NAME", "SparseRPNHead"], "of another architecture"),
        (["2x", "--images", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_bad_arguments_end_in_one_line(prune, tmp_path, arguments, message):
    pytest.importorskip("torch_pruning")
    status, lines = prune(*arguments)
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and message in errors[0], lines
    assert not list(tmp_path.iterdir())


def test_without_the_library(prune, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    status, lines = prune("2x")
    assert status == 1 and lines[-1].endswith('pip install "sparsedet[prune]"')
    assert not list(tmp_path.iterdir())
