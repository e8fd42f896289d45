"""A compressed model is built again from its config, takes its checkpoint, and refuses others."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.modeling import build_model
from torch import nn

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.compress import resolve_plan, sparsify_
from sparsedet.detection.classes import class_names
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, SparseFusionConv2d
from sparsedet.modeling import dense_config, sparsified_config
from sparsedet.modeling.memory_format import (
    enter_in_channels_last_,
    run_trunks_in_channels_last_,
)

SHAPES = Path(__file__).resolve().parents[2] / "configs/Shapes-Detection"
SMALL = ["MODEL.VGG.WIDTH_MULTIPLIER", 0.125, "MODEL.ROI_BOX_HEAD.FC_DIM", 16]
PLAN = {
    "backbone.conv3_1": {"pattern": "rows", "ranks": [4, 6]},
    "backbone.conv4_2": {"pattern": "quad", "ranks": [4, 3, 2, 1]},
    "proposal_generator.rpn_head.conv": {"pattern": "checkerboard", "ranks": [5, 4]},
    "proposal_generator.rpn_head.anchor_deltas": {"pattern": "whole", "ranks": [3]},
    "roi_heads.box_head.fc6": {"rank": 8},
}


def _config(name="faster_rcnn_VGG_11.yaml", *opts):
    return load_config(str(SHAPES / name), [*SMALL, *opts])


def _build(cfg):
    torch.manual_seed(0)
    return build_model(cfg).eval()


def _reload(cfg, folder):
    """As tools/compress.py writes it and others read it."""
    (folder / "config.yaml").write_text(cfg.dump())
    return load_config(str(folder / "config.yaml"))


def _forms(model):
    return {name: (type(m), m.extra_repr()) for name, m in model.named_modules()}


def _shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_its_yaml_builds_the_model_that_surgery_makes(tmp_path):
    cfg = _config()
    surgery = _build(cfg)
    sparsify_(surgery, resolve_plan(surgery, PLAN))
    built = _build(_reload(sparsified_config(cfg, PLAN), tmp_path))
    assert _forms(built) == _forms(surgery)
    assert _shapes(built) == _shapes(surgery)
    assert built.backbone.conv4_2.ranks == (4, 3, 2, 1)


def test_its_checkpoint_loads_strictly_and_gives_the_same_detections(tmp_path):
    cfg = _config()
    model = _build(cfg)
    sparsify_(model, resolve_plan(model, PLAN))
    run_trunks_in_channels_last_(model)
    SparseDetCheckpointer(model, str(tmp_path)).save("model")
    torch.manual_seed(1)
    built = build_model(_reload(sparsified_config(cfg, PLAN), tmp_path)).eval()
    SparseDetCheckpointer(built, strict=True).load(str(tmp_path / "model.pth"))
    inputs = [{"image": torch.rand(3, 64, 80) * 255}]
    with torch.no_grad():
        (a,), (b,) = model(inputs), built(inputs)
    assert len(a["instances"])
    for field in ("pred_boxes", "scores"):
        a_values, b_values = (getattr(x["instances"], field) for x in (a, b))
        assert torch.equal(*(getattr(v, "tensor", v) for v in (a_values, b_values)))
    with pytest.raises(InputError, match="of another architecture than the config"):
        SparseDetCheckpointer(_build(cfg), strict=True).load(str(tmp_path / "model.pth"))


def test_the_dense_config_comes_back(tmp_path):
    cfg = _config()
    assert dense_config(cfg) is cfg
    before = copy.deepcopy(cfg)
    compact = sparsified_config(cfg, PLAN)
    assert cfg == before
    assert dense_config(compact) == cfg
    compact.freeze()
    dense = dense_config(_reload(compact, tmp_path))
    # In yaml some tuples have become lists.
    assert yaml.safe_load(dense.dump()) == yaml.safe_load(cfg.dump())
    assert not any(
        isinstance(m, (LowRankLinear, SparseFusionConv2d)) for m in _build(dense).modules()
    )


def test_a_model_that_was_sparse_from_the_start_is_compressed_further(tmp_path):
    cfg = _config("faster_rcnn_VGG_11_sparse.yaml", "MODEL.ROI_BOX_HEAD.FC_RANKS", [])
    compact = sparsified_config(cfg, {"roi_heads.box_head.fc*": {"rank": 8}})
    built = _build(_reload(compact, tmp_path))
    sparse = _build(cfg)
    assert isinstance(built.roi_heads.box_head.fc7, LowRankLinear)
    assert _shapes(built.backbone) == _shapes(sparse.backbone)
    assert built.backbone.conv3_1.ranks == sparse.backbone.conv3_1.ranks


@pytest.mark.parametrize("name", ["faster_rcnn_VGG_11.yaml", "faster_rcnn_VGG_11_sparse.yaml"])
def test_what_a_plan_has_compressed_is_not_compressed_again(name):
    cfg = _config(name)
    if "sparse" in name:
        cfg.MODEL.SPARSE_FUSION.PLAN.update({"backbone.conv3_1": PLAN["backbone.conv3_1"]})
    else:
        cfg = sparsified_config(cfg, {})
    with pytest.raises(InputError, match="compressed already") as refusal:
        sparsified_config(cfg, PLAN)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"backbone.conv3_9": PLAN["backbone.conv3_1"]}, "did you mean backbone.conv3_"),
        ({"backbone.conv3_1": {"pattern": "rows", "rank": 4}}, "keys must be {pattern, ranks}"),
        ({"backbone.conv3_1": {"pattern": "row", "ranks": [4, 4]}}, "unknown pattern 'row'"),
        ({"backbone.conv3_1": {"pattern": "rows", "ranks": [4]}}, "rows takes 2 ranks, not 1"),
        ({"roi_heads.box_head.fc6": {"rank": 1000}}, "rank must be 1 to 16, not 1000"),
        ({"roi_heads.box_pooler": {"rank": 4}}, "a ROIPooler that cannot be replaced"),
    ],
)
def test_a_plan_that_does_not_fit(tmp_path, entries, message):
    cfg = _reload(sparsified_config(_config(), entries), tmp_path)
    with pytest.raises(InputError) as refusal:
        build_model(cfg)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_classes_are_counted_in_the_head_of_the_dense_model(tmp_path):
    _config()  # registers the dataset
    zoo = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    retinanet = load_config(zoo, ["MODEL.RETINANET.NUM_CLASSES", 6])
    plan = {"head.cls_subnet.0": PLAN["backbone.conv3_1"]}
    cfg = _reload(sparsified_config(retinanet, plan), tmp_path)
    assert class_names(cfg, "shapes_trainval")[0] == "circle"
    cfg.MODEL.RETINANET.NUM_CLASSES = 5
    with pytest.raises(InputError, match="MODEL.RETINANET.NUM_CLASSES is 5, .* has 6 classes"):
        class_names(cfg, "shapes_trainval")
    dense = _config("faster_rcnn_VGG_11.yaml", "MODEL.ROI_HEADS.NUM_CLASSES", 7)
    with pytest.raises(InputError, match="MODEL.ROI_HEADS.NUM_CLASSES is 7"):
        class_names(sparsified_config(dense, PLAN), "shapes_trainval")


def test_what_a_trunk_is_called_with_is_converted_if_it_is_images():
    seen = []
    trunk = enter_in_channels_last_(nn.Identity())
    trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images, boxes = torch.rand(1, 3, 8, 9), [torch.rand(2, 4)]
    trunk(images), trunk(boxes), trunk(boxes[0])
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen[0], images)
    assert seen[1] is boxes and seen[2] is boxes[0]
