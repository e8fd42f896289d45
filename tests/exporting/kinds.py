"""Small models of every kind that detectron2 has, with random weights that find something."""

from __future__ import annotations

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from PIL import Image

from sparsedet import add_sparsedet_config
from sparsedet.compress import sparsify_, uniform_plan

NAMES = ["cup", "plate", "spoon"]
STUFF = ["things", "table", "wall", "window", "floor"]
KEYPOINTS = ["top", "left", "right", "bottom"]
DATASET = "kinds_test"

KINDS = {
    "faster c4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "faster dc5": "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "faster fpn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "mask c4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "mask dc5": "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml",
    "mask fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "fcos": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "rpn c4": "COCO-Detection/rpn_R_50_C4_1x.yaml",
    "rpn fpn": "COCO-Detection/rpn_R_50_FPN_1x.yaml",
    "panoptic": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "semantic": "Misc/semantic_R_50_FPN_1x.yaml",
}
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "DATASETS.TEST", (DATASET,)),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.FPN.OUT_CHANNELS", 16),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.RPN.CONV_DIMS", [16], "MODEL.RETINANET.NUM_CONVS", 2),
    *("MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.RETINANET.NUM_CLASSES", 3),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 2, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8, 8]),
    *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", len(KEYPOINTS)),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(STUFF)),
    *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 200),
    *("INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 144, "TEST.DETECTIONS_PER_IMAGE", 12),
]  # fmt: skip
# Standard deviations of outputs that make something be found.
SPREADS = {
    "objectness_logits": 1, "anchor_deltas": 0.3, "cls_score": 2, "bbox_pred": 0.5, "ctrness": 1,
    "score_lowres": 3, "predictor": 3,
}  # fmt: skip


def small_config(kind: str, *opts):
    MetadataCatalog.get(DATASET).set(
        thing_classes=NAMES,
        thing_colors=[(220, 20, 60), (0, 90, 200), (0, 160, 60)],
        stuff_classes=STUFF,
        stuff_colors=[(0, 0, 0), (150, 90, 40), (200, 200, 120), (90, 200, 220), (120, 120, 120)],
        keypoint_names=KEYPOINTS,
        keypoint_connection_rules=[("top", "left", (255, 0, 0)), ("right", "bottom", (0, 0, 255))],
    )
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(KINDS[kind]))
    cfg.merge_from_list([*SMALL, *opts])
    return cfg


def small_model(kind: str, *opts, sparse: bool = False) -> torch.nn.Module:
    """With its config as ``cfg`` and the class names of ``NAMES``, as a loaded model."""
    cfg = small_config(kind, *opts)
    torch.manual_seed(0)
    model = _fcos(cfg) if kind == "fcos" else build_model(cfg)
    model.eval().cfg = cfg
    if sparse:
        sparsify_(model, uniform_plan(model, "rows", 2.0, exclude=["*cls_score", "*bbox_pred"]))
    for name, layer in model.named_modules():
        if ("fpn_output" in name or "top_block.p" in name) and hasattr(layer, "weight"):
            _spread(lambda: model.backbone(50 * torch.randn(1, 3, 96, 128)), layer, 1)
        elif "_subnet" in name and isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        elif name == "head.cls_score":
            torch.nn.init.zeros_(layer.bias)
        elif name == "head.bbox_pred" and kind == "fcos":  # distances, of which few are above 0
            torch.nn.init.ones_(layer.bias)
    image = torch.from_numpy(picture(96, 128).transpose(2, 0, 1).copy())
    for name, layer in model.named_modules():
        spread = SPREADS.get(name.rpartition(".")[2])
        if spread and hasattr(layer, "weight"):
            _spread(lambda: model([{"image": image}]), layer, spread)
    return model


def _fcos(cfg) -> FCOS:
    backbone = build_backbone(cfg)
    names = cfg.MODEL.RETINANET.IN_FEATURES
    head = FCOSHead(
        input_shape=[backbone.output_shape()[name] for name in names],
        num_classes=len(NAMES),
        conv_dims=[16, 16],
    )
    return FCOS(
        backbone=backbone, head=head, head_in_features=names, num_classes=len(NAMES),
        test_score_thresh=cfg.MODEL.RETINANET.SCORE_THRESH_TEST,
        max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN, pixel_std=cfg.MODEL.PIXEL_STD,
    )  # fmt: skip


@torch.no_grad()
def _spread(run, layer, spread):
    """Scale a layer so that its outputs have this standard deviation."""
    outputs = []
    # A copy, as dense detectors change what their heads gave.
    hook = layer.register_forward_hook(lambda module, args, y: outputs.append(y.clone()))
    run()
    hook.remove()
    layer.weight *= spread / torch.cat([y.flatten() for y in outputs]).std()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, (height, width, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
