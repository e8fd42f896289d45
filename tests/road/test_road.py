"""Every kind of detector of detectron2, made small, goes the whole road.

Compressed, saved, loaded in three ways, fine-tuned and evaluated with its own metrics, optimized.
"""

import copy
import json
import pickle
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic_separated
from detectron2.engine import DefaultPredictor, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn

import sparsedet
from sparsedet.benchmark.counting import random_proposals
from sparsedet.compress import plan_to_entries, uniform_plan
from sparsedet.compress.candidates import dense_layers
from sparsedet.detection.config import load_config
from sparsedet.detection.predictor import Predictor
from sparsedet.errors import InputError
from sparsedet.exporting.optimize import optimize_for_inference
from sparsedet.training.trainer import Trainer

WIDTH, HEIGHT = 96, 64
THINGS, STUFF = ["block", "disc"], ["sky", "ground"]
POINTS = ["left_end", "right_end", "top"]
NOT_EXPORTED = {"deformable": "is a deformable convolution"}
"""Kinds that have no exported form, and what the one line about it names."""

RESNET = {
    "STEM_OUT_CHANNELS": 8,
    "RES2_OUT_CHANNELS": 16,
    "WIDTH_PER_GROUP": 8,
    "DEPTH": 50,
    "NORM": "BN",
}
SMALL = {
    "DEVICE": "cpu",
    "WEIGHTS": "",
    "BACKBONE": {"FREEZE_AT": 0},
    "RESNETS": RESNET,
    "FPN": {"OUT_CHANNELS": 16},
    "RPN": {"PRE_NMS_TOPK_TEST": 60, "POST_NMS_TOPK_TEST": 20, "POST_NMS_TOPK_TRAIN": 20},
    "ROI_HEADS": {"NUM_CLASSES": 2, "SCORE_THRESH_TEST": 0.05, "BATCH_SIZE_PER_IMAGE": 16},
    "RETINANET": {"NUM_CLASSES": 2, "NUM_CONVS": 1},
    "ROI_BOX_HEAD": {"FC_DIM": 16},
    "ROI_MASK_HEAD": {"CONV_DIM": 16, "NUM_CONV": 2},
    "ROI_KEYPOINT_HEAD": {"CONV_DIMS": [16, 16], "NUM_KEYPOINTS": 3, "MIN_KEYPOINTS_PER_IMAGE": 1},
    "SEM_SEG_HEAD": {"NUM_CLASSES": 3, "CONVS_DIM": 32},
}
FASTER, MASK = "COCO-Detection/faster_rcnn_R_50_{}_1x.yaml", "COCO-InstanceSegmentation/mask_rcnn_"
BOXES = {"bbox/AP", "voc/mAP"}
# Kind: stock config, what is changed in its MODEL beside SMALL, metrics of its own.
KINDS = {
    "c4": (FASTER.format("C4"), {}, BOXES),
    "dc5": (FASTER.format("DC5"), {}, BOXES),
    "fpn": (FASTER.format("FPN"), {}, BOXES),
    "x101": (
        "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml",
        {"RESNETS": {"NUM_GROUPS": 4, "WIDTH_PER_GROUP": 4}},
        BOXES,
    ),
    "retinanet": ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {}, BOXES),
    "mask": (MASK + "R_50_FPN_1x.yaml", {}, BOXES | {"segm/AP"}),
    "mask_c4": (MASK + "R_50_C4_1x.yaml", {}, BOXES | {"segm/AP"}),
    "keypoint": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", {}, BOXES | {"keypoints/AP"}),
    "cascade": ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", {"MASK_ON": False}, BOXES),
    "cascade_mask": ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", {}, BOXES | {"segm/AP"}),
    "deformable": ("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml", {}, BOXES | {"segm/AP"}),
    "panoptic": (
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
        {},
        BOXES | {"segm/AP", "sem_seg/mIoU", "panoptic_seg/PQ"},
    ),
    "semantic": ("Misc/semantic_R_50_FPN_1x.yaml", {}, {"sem_seg/mIoU"}),
    "rpn": ("COCO-Detection/rpn_R_50_FPN_1x.yaml", {}, {"box_proposals/AR@100"}),
}
FAST = "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml"  # from proposals that are computed before
SOME = ["*.res[35].0.conv2", "*head*", "*fpn_output*"]  # layers, so as not to take long
TARGET = 1.04
TASKS = ("bbox", "voc", "segm", "keypoints", "sem_seg", "panoptic_seg", "box_proposals")
# Those that detectron2 describes by a LazyConfig alone; metrics of their own, and what makes them
# small.
SMALL_LAZY = """
from detectron2 import model_zoo
from detectron2.config import LazyCall as L, LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

_cfg = LazyConfig.load(model_zoo.get_config_file("{stock}"))
dataloader, model, optimizer, train = (
    _cfg[part] for part in ("dataloader", "model", "optimizer", "train")
)
model.backbone.out_channels = 32
model.backbone.bottom_up = L(RegNet)(
    stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=5, w_a=12, w_0=16,
    w_m=1.5, group_width=8, norm="BN", out_features=["s1", "s2", "s3", "s4"],
)
for _split in (dataloader.train, dataloader.test):
    _split.dataset.names = "world_panoptic_separated"
    _split.num_workers = 0
    _split.mapper.augmentations[0].update(short_edge_length=64, max_size=96)
dataloader.train.total_batch_size = 2
train.update(device="cpu", output_dir="dense")
optimizer.lr = 0.001
"""
LAZY = {
    "fcos": (
        "COCO-Detection/fcos_R_50_FPN_1x.py",
        """
model.backbone.in_features = ["s2", "s3", "s4"]
model.backbone.top_block.in_channels = 32
model.head.update(input_shape=[ShapeSpec(channels=32)] * 5, conv_dims=[64])  # norm: 32 groups
model.update(num_classes=2, test_score_thresh=0.05, max_detections_per_image=10)
""",
        BOXES,
    ),
    "regnet": (
        "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py",
        """
_heads, _rpn = model.roi_heads, model.proposal_generator
model.backbone.norm = ""
_rpn.head.update(in_channels=32, conv_dims=[-1])
_rpn.update(post_nms_topk=(20, 20))
_heads.update(num_classes=2, batch_size_per_image=16)
_heads.box_head.update(
    input_shape=ShapeSpec(channels=32, height=7, width=7), conv_dims=[16], fc_dims=[16]
)
_heads.box_predictor.update(input_shape=ShapeSpec(channels=16), test_topk_per_image=10)
_heads.mask_head.update(
    input_shape=ShapeSpec(channels=32, height=14, width=14), conv_dims=[16, 16]
)
dataloader.train.mapper.augmentations = dataloader.test.mapper.augmentations
""",
        BOXES | {"segm/AP"},
    ),
}
LAZY_SOME = ["*.s[24].*b.0", "*head*", "*fpn_output*"]


def picture(seed):
    """Two things on ground below sky: pixels, masks by thing, and what every pixel is of."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    stuff = np.zeros((HEIGHT, WIDTH), np.uint8)
    horizon = int(rng.integers(20, 40))
    stuff[:horizon], stuff[horizon:] = 1, 2
    image[:horizon] += np.array([150, 80, 0], np.uint8)
    masks = []
    for thing, centre in enumerate([(24, 24), (68, 40)]):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        x, y = np.array(centre) + rng.integers(-6, 7, 2)
        if thing:
            cv2.circle(mask, (int(x), int(y)), 14, 1, -1)
        else:
            cv2.rectangle(mask, (int(x) - 14, int(y) - 12), (int(x) + 14, int(y) + 12), 1, -1)
        image[mask > 0] = (0, 200, 40) if thing else (40, 40, 230)
        masks.append(mask)
    return image, masks, stuff


def annotation(number, image, thing, mask):
    """One COCO object: a polygon, and the left, right and top ends of it as keypoints."""
    (polygon,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rle = pycocotools.mask.encode(np.asfortranarray(mask))
    ends = [polygon[polygon[:, 0, 0].argmin()], polygon[polygon[:, 0, 0].argmax()]]
    ends.append(polygon[polygon[:, 0, 1].argmin()])
    return {
        "id": number,
        "image_id": image,
        "category_id": thing + 1,
        "bbox": pycocotools.mask.toBbox(rle).tolist(),
        "area": float(pycocotools.mask.area(rle)),
        "iscrowd": 0,
        "segmentation": [polygon.flatten().tolist()],
        "keypoints": [v for (point,) in ends for v in (int(point[0]), int(point[1]), 2)],
        "num_keypoints": 3,
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder of pictures in COCO's forms, and detectron2's data sets of those with stuff."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("images", "panoptic", "stuff"):
        (folder / name).mkdir()
    images, objects, segments = [], [], []
    for i in range(4):
        pixels, masks, stuff = picture(i)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), pixels)
        images.append({"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH})
        ids = stuff.astype(np.uint8)
        info = [{"id": k, "category_id": 10 + k, "iscrowd": 0} for k in (1, 2)]
        for thing, mask in enumerate(masks):
            objects.append(annotation(len(objects) + 1, i, thing, mask))
            ids[mask > 0], stuff[mask > 0] = 3 + thing, 0
            info.append({"id": 3 + thing, "category_id": thing + 1, "iscrowd": 0})
        cv2.imwrite(str(folder / "stuff" / f"{i}.png"), stuff)
        rgb = np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], -1)
        cv2.imwrite(str(folder / "panoptic" / f"{i}.png"), rgb[:, :, ::-1])
        segments.append({"image_id": i, "file_name": f"{i}.png", "segments_info": info})
    things = [{"id": i + 1, "name": name, "isthing": 1} for i, name in enumerate(THINGS)]
    for row in things:
        row.update(keypoints=POINTS, skeleton=[[1, 3], [2, 3]])
    kinds = [*things, *({"id": 11 + i, "name": n, "isthing": 0} for i, n in enumerate(STUFF))]
    for name, categories, rows in (("objects", things, objects), ("panoptic", kinds, segments)):
        content = {"images": images, "categories": categories, "annotations": rows}
        (folder / f"{name}.json").write_text(json.dumps(content))
    metadata = {
        "thing_dataset_id_to_contiguous_id": {1: 0, 2: 1},
        "stuff_dataset_id_to_contiguous_id": {11: 1, 12: 2},
        "stuff_classes": ["things", *STUFF],
        "thing_classes": THINGS,
    }
    metadata["stuff_dataset_id_to_contiguous_id"][0] = 0
    register_coco_panoptic_separated(
        "world_panoptic", metadata, *(str(folder / part) for part in ("images", "panoptic")),
        str(folder / "panoptic.json"), str(folder / "stuff"), str(folder / "objects.json"),
    )  # fmt: skip
    yield folder
    for name in [name for name in DatasetCatalog.list() if name.startswith("world")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def merged(one, other):
    """Nested settings, of which those of ``other`` count."""
    both = copy.deepcopy(one)
    for key, value in other.items():
        both[key] = merged(both[key], value) if isinstance(both.get(key), dict) else value
    return both


def write_config(kind, world, folder):
    """The small config of a kind; its path."""
    base, changes, _ = KINDS.get(kind, (FAST, {}, BOXES))
    objects = {
        "format": "coco",
        "json": str(world / "objects.json"),
        "images": str(world / "images"),
    }
    data = {"panoptic": "world_stuff", "semantic": "world_panoptic_stuffonly"}
    data = data.get(kind, "world_objects")
    stuff = {
        "sem_seg_root": str(world / "stuff"),
        "stuff_classes": ["things", *STUFF],
        "panoptic_json": str(world / "panoptic.json"),
        "panoptic_root": str(world / "panoptic"),
    }
    registered = {"world_objects": objects, "world_stuff": {**objects, **stuff}}
    config = {
        "_BASE_": model_zoo.get_config_file(base),
        "MODEL": merged(SMALL, changes),
        "INPUT": {"MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96, "MIN_SIZE_TRAIN": [64]},
        "DATASETS": {"TRAIN": [data], "TEST": [data], "REGISTER": registered},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {"IMS_PER_BATCH": 2, "BASE_LR": 0.001, "WARMUP_ITERS": 0},
        "TEST": {"KEYPOINT_OKS_SIGMAS": [0.1, 0.1, 0.1], "DETECTIONS_PER_IMAGE": 10},
        "OUTPUT_DIR": str(folder / "dense"),
        "SEED": 1,
    }
    for split in ("TRAIN", "TEST"):
        config["DATASETS"][f"PROPOSAL_FILES_{split}"] = [str(folder / "proposals.pkl")]
    path = folder / "dense.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@torch.no_grad()
def trained(config, folder):
    """Weights that find something, as if they had been trained: normed, and decided."""
    torch.manual_seed(0)
    model = build_model(load_config(config))
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all
            if "conv3" in name:
                module.weight.fill_(0.3)  # as after training, a block adds a little
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and "backbone" not in name:
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    model.backbone.train()
    for seed in range(4):
        pixels = torch.as_tensor(picture(seed)[0].transpose(2, 0, 1).astype("float32"))
        model.backbone(((pixels - model.pixel_mean) / model.pixel_std)[None])
    DetectionCheckpointer(model, str(folder)).save("dense")
    return folder / "dense.pth"


def assert_same(one, other, atol=1e-4):
    """What a detectron2 model gives for an image."""
    assert one.keys() == other.keys()
    for key in one:
        if isinstance(one[key], Instances):
            assert_same(one[key].get_fields(), other[key].get_fields(), atol)
        elif key == "panoptic_seg":
            assert (one[key][0] == other[key][0]).float().mean() > 0.99
        elif isinstance(one[key], Boxes):
            torch.testing.assert_close(one[key].tensor, other[key].tensor, atol=0.01, rtol=1e-4)
        elif key == "pred_masks":
            assert (one[key] == other[key]).float().mean() > 0.99
        else:
            torch.testing.assert_close(one[key], other[key], atol=atol, rtol=1e-3)


@torch.no_grad()
def outputs(model, image):
    """As DefaultPredictor runs it."""
    pixels = torch.as_tensor(image.transpose(2, 0, 1).astype("float32"))
    return model([{"image": pixels, "height": HEIGHT, "width": WIDTH}])[0]


def exported(kind, model, folder):
    """Export, which compares with PyTorch in every output, or be told in one line why not."""
    path = folder / "model.onnx"
    if kind in NOT_EXPORTED:
        with pytest.raises(InputError, match=NOT_EXPORTED[kind]):
            sparsedet.export(model, path)
        assert not path.exists()
        return
    sparsedet.export(model, path)
    sparsedet.Detector(path)(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def compressed(config, weights, some, image):
    """Compress by a uniform plan, and by a target, into a folder; what the model gives then."""
    model = sparsedet.load_model(config, weights)
    names = list(dense_layers(model))
    some = [glob for glob in some if any(fnmatchcase(name, glob) for name in names)]
    answers = sparsedet.DetectionTask([[]]).answers(model)
    plan = plan_to_entries(uniform_plan(model, "rows", 4, some, answers))
    uniform = sparsedet.compress_(copy.deepcopy(model), plan=plan, num_images=2, calibrate=False)
    assert uniform.parameters[0] > uniform.parameters[1]
    result = sparsedet.compress_(
        model, params=TARGET, num_images=2, include=some, patterns=["rows", "whole"]
    )
    assert result.parameters[0] > TARGET * result.parameters[1]
    result.save("compact")
    expected = outputs(result.model, image)
    assert len(expected.get("instances", image)) > 0
    return result, expected


def loaded(config, kind, image, expected, folder):
    """Load what was saved in three ways, optimize it and export it; config and model."""
    cfg = load_config(config)
    built = build_model(cfg).eval()
    DetectionCheckpointer(built).load(cfg.MODEL.WEIGHTS)
    assert_same(outputs(built, image), expected)
    assert_same(DefaultPredictor(cfg)(image), expected)
    assert_same(Predictor(cfg)(image), expected)
    assert_same(outputs(optimize_for_inference(built), image), expected, atol=1e-2)
    exported(kind, sparsedet.load_model(cfg), folder)
    return cfg, built


def check_metrics(found, expected):
    """All that a kind gives was evaluated, and nothing else."""
    assert {metric for metric in expected if np.isfinite(found[metric])} == expected
    tasks = {key.split("/")[0] for key in found if key.split("/")[0] in TASKS}
    assert {metric.split("/")[0] for metric in expected} == tasks


def flat(results):
    return {f"{task}/{key}": rows[key] for task, rows in results.items() for key in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_road(kind, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(kind, world, tmp_path)
    image = picture(0)[0]
    result, expected = compressed(config, trained(config, tmp_path), SOME, image)
    cfg, built = loaded("compact/config.yaml", kind, image, expected, tmp_path)
    cfg.SOLVER.MAX_ITER = 1
    cfg.freeze()
    if kind == "deformable":  # it has no gradients on a CPU, on which it is evaluated
        assert any("DeformConv" in note for note in result.notes)
        assert any("weighed alike" in note for note in result.notes)
        check_metrics(flat(Trainer.test(cfg, built)), KINDS[kind][2])
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()  # evaluates at the end
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    found = {key: value for line in lines for key, value in json.loads(line).items()}
    assert np.isfinite(found["total_loss"])
    check_metrics(found, KINDS[kind][2])


@pytest.mark.parametrize("kind", LAZY)
def test_lazy_road(kind, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stock, changes, metrics = LAZY[kind]
    config = tmp_path / "dense.py"
    config.write_text(SMALL_LAZY.format(stock=stock) + changes)
    image = picture(0)[0]
    _, expected = compressed(config, trained(config, tmp_path), LAZY_SOME, image)
    cfg, built = loaded("compact/config.py", kind, image, expected, tmp_path)
    check_metrics(flat(Trainer.test(cfg, built)), metrics)

    # as detectron2's lazyconfig_train_net.py
    nodes = LazyConfig.load("compact/config.py")
    model = instantiate(nodes.model)
    DetectionCheckpointer(model).load(nodes.train.init_checkpoint)
    assert_same(outputs(model.eval(), image), expected)
    nodes.optimizer.params.model = model
    trainer = SimpleTrainer(
        model.train(), instantiate(nodes.dataloader.train), instantiate(nodes.optimizer)
    )
    trainer.train(0, 1)
    assert trainer.iter == 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def write_proposals(path):
    """Those of each picture, as detectron2 reads them: the whole, and its halves."""
    boxes = np.array([[0, 0, 96, 64], [0, 0, 48, 64], [48, 0, 96, 64], [10, 10, 40, 40]], float)
    content = {
        "ids": list(range(4)),
        "boxes": [boxes] * 4,
        "objectness_logits": [np.arange(4.0)[::-1]] * 4,
        "bbox_mode": BoxMode.XYXY_ABS,
    }
    with open(path, "wb") as file:
        pickle.dump(content, file)


def test_road_of_precomputed_proposals(world, tmp_path, monkeypatch):
    """A Fast R-CNN is compressed on inputs that have their proposals, and trains on a file."""
    monkeypatch.chdir(tmp_path)
    config = write_config("fast", world, tmp_path)
    weights = trained(config, tmp_path)
    model = sparsedet.load_model(config, weights)
    with pytest.raises(InputError, match="LOAD_PROPOSALS: .* does not run on images alone"):
        sparsedet.compress_(model, params=TARGET)
    with pytest.raises(InputError, match="LOAD_PROPOSALS: .* does not run on images alone"):
        Predictor(model.cfg)
    batches = []
    for seed in range(2):
        image = torch.as_tensor(picture(seed)[0].transpose(2, 0, 1))
        proposals = random_proposals(9, HEIGHT, WIDTH)
        batches.append([{"image": image, "proposals": proposals}])
    result = sparsedet.compress_(model, batches=batches, params=TARGET, patterns=["rows"])
    result.save("compact")

    cfg = load_config("compact/config.yaml")
    with torch.no_grad():
        expected = result.model(batches[0])[0]
        assert_same(sparsedet.load_model(cfg)(batches[0])[0], expected)
    cfg.SOLVER.MAX_ITER = 1
    with pytest.raises(InputError, match="proposals.pkl: cannot be read: No such file"):
        Trainer(cfg)
    write_proposals("proposals.pkl")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    check_metrics(flat(Trainer.test(cfg, trainer.model)), BOXES)
