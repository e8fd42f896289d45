"""LazyConfig files in the tools, and what is wrong with some. tests/road takes them all the way."""

import builtins
import json

import cv2
import pytest
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig
from detectron2.modeling import build_model

import sparsedet
from sparsedet.benchmark.cases import detect
from sparsedet.benchmark.models import Setting, build_detector
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError

SMALL = """
from detectron2 import model_zoo
from detectron2.config import LazyCall as L, LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

_cfg = LazyConfig.load(
    model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
)
dataloader, model, optimizer, train = (
    _cfg[part] for part in ("dataloader", "model", "optimizer", "train")
)
model.backbone.out_channels = 16
model.backbone.bottom_up = L(RegNet)(
    stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=5, w_a=12, w_0=16,
    w_m=1.5, group_width=8, norm="BN", out_features=["s1", "s2", "s3", "s4"],
)
model.backbone.in_features = ["s1", "s2", "s3", "s4"]
model.proposal_generator.head.in_channels = 16
_heads = model.roi_heads
_heads.num_classes = 3
_heads.box_head.update(input_shape=ShapeSpec(channels=16, height=7, width=7), fc_dims=[16])
_heads.box_predictor.input_shape = ShapeSpec(channels=16)
del _heads.mask_in_features, _heads.mask_pooler, _heads.mask_head
dataloader.test.dataset.names = "kitchen_of_three"
dataloader.train.dataset.names = "kitchen_of_three"
dataloader.test.mapper.augmentations[0].update(short_edge_length=64, max_size=128)
train.update(device="cpu", output_dir="out")
"""
KITCHEN = """
from detectron2.data import DatasetCatalog, MetadataCatalog
if "kitchen_of_three" not in DatasetCatalog:
    DatasetCatalog.register("kitchen_of_three", lambda: [])
    MetadataCatalog.get("kitchen_of_three").set(thing_classes=["cup", "plate", "spoon"])
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with dense.py and its weights."""
    folder = tmp_path_factory.mktemp("lazy")
    (folder / "dense.py").write_text(KITCHEN + SMALL)
    torch.manual_seed(0)
    model = build_model(load_config(folder / "dense.py"))
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=1.0)
    DetectionCheckpointer(model, str(folder)).save("dense")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(64, 96, seed))
    return folder


def test_its_keys_are_told_as_those_of_a_yaml(small):
    cfg = load_config(small / "dense.py", ["model.roi_heads.box_predictor.test_score_thresh=0.3"])
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (64, 128)
    assert (cfg.INPUT.FORMAT, cfg.MODEL.DEVICE, cfg.OUTPUT_DIR) == ("BGR", "cpu", "out")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3 and not cfg.MODEL.MASK_ON
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.3
    assert cfg.DATASETS.TEST == ("kitchen_of_three",)
    clone = cfg.clone()
    assert build_model(clone).roi_heads.box_predictor.test_score_thresh == 0.3


def test_stock_ones_are_read():
    stock = {
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py": ("PanopticFPN", True, False),
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py": ("GeneralizedRCNN", False, True),
        "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py": ("GeneralizedRCNN", True, False),
        "COCO-Detection/fcos_R_50_FPN_1x.py": ("FCOS", False, False),
    }
    for name, expected in stock.items():
        cfg = load_config(model_zoo.get_config_file(name))
        assert (cfg.model_class(), cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON) == expected
        assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (800, 1333)


def test_the_tools_take_it(small, photos, tmp_path, run_tool):
    weights = small / "dense.pth"
    status, errors = run_tool(
        "compress.py", "--config-file", small / "dense.py", "--weights", weights,
        "--images", photos, "--num-images", 2, "--target-params", "1.3x",
        "--patterns", "rows", "--output", tmp_path / "compact",
    )  # fmt: skip
    assert status == 0, errors
    compact = tmp_path / "compact" / "config.py"
    nodes = LazyConfig.load(str(compact))
    assert nodes.train.init_checkpoint == str(tmp_path / "compact" / "model.pth")
    assert nodes.model.roi_heads.num_classes == 3 and "optimizer" in nodes
    status, errors = run_tool(
        "demo.py", "--config-file", compact, "--input", photos / "0.png",
        "--output", tmp_path / "found", "--confidence-threshold", 0.1,
    )  # fmt: skip
    assert status == 0, errors
    (found,) = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert {one["class"] for one in found["detections"]} <= {"cup", "plate", "spoon"}
    assert all(one["score"] > 0.1 for one in found["detections"]) and found["detections"]
    status, errors = run_tool(
        "export_model.py", "--config-file", compact, "--output", tmp_path / "model.onnx"
    )
    assert status == 0, errors
    assert (tmp_path / "model.onnx").is_file()
    status, errors = run_tool("train_net.py", "--config-file", compact)
    assert status == 1
    assert errors[-1].startswith(f"error: {compact}: a LazyConfig trains by its own nodes: run")


def test_the_benchmark_gives_it_as_many_proposals_as_are_asked_for(small):
    setting = Setting(height=64, width=64, proposals=7, batch=1, threads=1)
    model = build_detector(str(small / "dense.py"), "", setting)
    assert model.proposal_generator.post_nms_topk[False] == 7
    assert len(detect(model, setting.images())[0]["instances"]) > 0


WRONG = {
    "no model": ("train = dict(device='cpu')", [], r"no model = .* in it, but train; name"),
    "nothing": ("x = 1", [], "no model = .* in it, nor anything else"),
    "no call": ("model = dict(a=1)", [], "no model = LazyCall"),
    "no Python": ("model = (", [], "dense.py: SyntaxError: "),
    "fails": ("raise KeyError('x')", [], "dense.py: KeyError: 'x'"),
    "a key": (SMALL, ["MODEL.MASK_ON", "True"], "MODEL.MASK_ON: not a key .* node=value"),
    "half a pair": (SMALL, ["OUTPUT_DIR"], "node=value, or pairs KEY VALUE: OUTPUT_DIR"),
    "an override": (SMALL, ["model.(x)=1"], r"model.\(x\)=1: "),
    "a device": (SMALL, ["train.device=moon"], "MODEL.DEVICE 'moon': no such device"),
    "a type": (SMALL, ["train.device=3"], "dense.py: Type mismatch"),
    "a link": (SMALL, ["model.num_classes='${nowhere}'"], "nowhere"),
    "other steps": (
        SMALL + "\ndel dataloader.test.mapper.augmentations[0]",
        [],
        "augmentations are none; expected one ResizeShortestEdge",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(case, tmp_path):
    text, opts, message = WRONG[case]
    path = tmp_path / "dense.py"
    path.write_text(KITCHEN + text)
    real_import = builtins.__import__
    with pytest.raises(InputError, match=message) as error:
        load_config(path, opts)
    assert "\n" not in str(error.value)
    assert builtins.__import__ is real_import


def test_a_model_that_cannot_be_built(small, tmp_path):
    path = tmp_path / "dense.py"
    path.write_text(KITCHEN + SMALL + "\nmodel.backbone.nothing = 1")
    with pytest.raises(InputError, match="the model of this config cannot be built: .*nothing"):
        sparsedet.load_model(path, small / "dense.pth")


def test_no_yaml_calls_anything(small, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {META_ARCHITECTURE: LazyModel}")
    with pytest.raises(InputError, match="LazyModel is built from a LazyConfig; name its .py"):
        sparsedet.load_model(path, small / "dense.pth")


def test_what_is_compact_is_not_compressed_again(small, photos, tmp_path):
    model = sparsedet.load_model(small / "dense.py", small / "dense.pth")
    plan = {"backbone.fpn_output2": {"pattern": "rows", "ratio": 4}}
    result = sparsedet.compress_(model, images=photos, num_images=2, plan=plan)
    result.save(tmp_path / "compact")
    again = sparsedet.load_model(tmp_path / "compact" / "config.py")
    plan = {"backbone.fpn_output3": {"pattern": "rows", "ratio": 4}}
    result = sparsedet.compress_(again, images=photos, num_images=2, plan=plan)
    with pytest.raises(InputError, match="the model is compressed already; start from the dense"):
        result.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    (small / "dense.py").rename(small / "moved.py")
    try:
        with pytest.raises(InputError, match="dense.py: no such file, of which the model was com"):
            load_config(tmp_path / "compact" / "config.py")
    finally:
        (small / "moved.py").rename(small / "dense.py")
