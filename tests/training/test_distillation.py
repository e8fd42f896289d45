"""Distillation: the losses, who learns from whom, and what training with a teacher leaves."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.modeling import dense_config
from sparsedet.training.distillation import Distiller, box_loss, feature_loss, proposal_loss
from sparsedet.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["loss_distill_features", "loss_distill_rpn", "loss_distill_box"]

PLAN = {
    "backbone.conv3_1": {"pattern": "rows", "ranks": [4, 4]},
    "proposal_generator.rpn_head.conv": {"pattern": "checkerboard", "ranks": [4, 4]},
    "roi_heads.box_head.fc6": {"rank": 8},
}

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  META_ARCHITECTURE: SparsifiedModel
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
  SPARSE_FUSION: {{PLAN: {json.dumps(PLAN)}}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 2, STEPS: [], WARMUP_ITERS: 0, BASE_LR: 0.001}}
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=4, num_test=2, image_size=(128, 96))
    return folder


@pytest.fixture
def config(tmp_path, datasets, monkeypatch):
    """The config of a compressed model, whose teacher is ``teacher.pth`` beside it."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    path = tmp_path / "compressed.yaml"
    path.write_text(CONFIG)
    torch.manual_seed(0)
    teacher = build_model(dense_config(load_config(str(path))))
    SparseDetCheckpointer(teacher, str(tmp_path)).save("teacher")
    return path


def _teacher(path):
    return ["MODEL.DISTILLATION.TEACHER", str(path.with_name("teacher.pth"))]


def _dense(*opts):
    """A small detector without what differs between training and evaluation."""
    torch.manual_seed(0)
    cfg = load_config(
        str(ROOT / "configs/Shapes-Detection/faster_rcnn_VGG_11.yaml"),
        [
            *("MODEL.VGG.WIDTH_MULTIPLIER", 0.125, "MODEL.VGG.NORM", ""),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 32),
            *opts,
        ],
    )
    return build_model(cfg)


LEVELS = ["p2", "p3", "p4", "p5", "p6"]
FPN = [
    *("MODEL.BACKBONE.NAME", "build_vgg_fpn_backbone", "MODEL.FPN.OUT_CHANNELS", 16),
    *("MODEL.VGG.OUT_FEATURES", ["conv3", "conv4", "conv5", "pool5"]),
    *("MODEL.FPN.IN_FEATURES", ["conv3", "conv4", "conv5", "pool5"]),
    *("MODEL.RPN.IN_FEATURES", LEVELS, "MODEL.ROI_HEADS.IN_FEATURES", LEVELS[:4]),
    *("MODEL.RETINANET.IN_FEATURES", LEVELS),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]]),
]


def _batch():
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 12.0, 60.0, 50.0]]))
    instances.gt_classes = torch.tensor([1])
    torch.manual_seed(1)
    return [{"image": torch.rand(3, 64, 96) * 255, "instances": instances}]


def _losses(distiller):
    with EventStorage():
        losses = distiller.train()(_batch())
    return [losses[name] for name in NAMES]


def test_feature_loss_is_relative_to_the_teacher_at_each_level():
    teacher = {"p2": torch.tensor([1.0, 3.0]), "p3": torch.tensor([[200.0]])}
    student = {"p2": torch.tensor([2.0, 3.0]), "p3": torch.tensor([[100.0]])}
    # (1 / 2) / (10 / 2) = 0.1 and 100^2 / 200^2 = 0.25.
    assert feature_loss(student, teacher).item() == pytest.approx((0.1 + 0.25) / 2)


def test_proposal_loss_of_two_anchors():
    def logit(p):
        return math.log(p / (1 - p))

    # One place, two anchors: the teacher says 0.8 and 0.5, the student 0.5 and 0.5.
    teacher_logits = torch.tensor([logit(0.8), 0.0]).view(1, 2, 1, 1)
    teacher = [teacher_logits], [torch.zeros(1, 8, 1, 1)]
    deltas = torch.tensor([0.5, 0, 0, 0.1, 0, 0, 0, 2.0]).view(1, 8, 1, 1)
    student = [torch.zeros(1, 2, 1, 1)], [deltas]
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    first = (0.5 - 1 / 18) + 0.1**2 * 9 / 2  # beyond 1 / 9 linear, below it quadratic
    second = 2 - 1 / 18
    expected = (divergence + 0.8 * first + 0.5 * second) / (0.8 + 0.5)
    assert proposal_loss(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_box_loss_of_two_boxes(class_agnostic):
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    q = torch.tensor([[0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
    # By box and class: how far the four deltas are in all.
    apart = torch.tensor([[1.0], [4.0]]) if class_agnostic else torch.tensor([[1.0, 2], [4.0, 8]])
    deltas = (apart[..., None] * torch.tensor([0.5, -0.25, 0.25, 0])).flatten(1)
    divergence = sum(a * math.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist()))
    if class_agnostic:
        distance = (0.5 + 0.3) * 1 + (0.1 + 0.1) * 4
    else:
        distance = 0.5 * 1 + 0.3 * 2 + 0.1 * 4 + 0.1 * 8
    # Softmax does not see what is added to all scores of a box.
    loss = box_loss((q.log() + 3, deltas), (p.log() - 5, torch.zeros_like(deltas)))
    assert loss.item() == pytest.approx((divergence + distance) / 2, rel=1e-5)


def test_no_boxes_and_half_precision():
    nothing = torch.zeros(0, 3), torch.zeros(0, 8)
    assert box_loss(nothing, nothing) == 0
    # 300^2 is beyond float16.
    large = {"p2": torch.full((4,), 300.0, dtype=torch.half)}
    assert feature_loss({"p2": large["p2"] * 2}, large) == 1


@pytest.mark.parametrize("opts", [[], FPN], ids=["VGG", "FPN"])
def test_a_student_like_its_teacher_has_nothing_to_learn(opts):
    student = _dense(*opts)
    losses = _losses(Distiller(student, copy.deepcopy(student)))
    assert losses[0] == 0
    assert all(abs(loss.item()) < 1e-6 for loss in losses)


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("proposal_generator.rpn_head.objectness_logits.bias", "loss_distill_rpn"),
        ("proposal_generator.rpn_head.anchor_deltas.bias", "loss_distill_rpn"),
        ("roi_heads.box_predictor.cls_score.bias", "loss_distill_box"),
        ("roi_heads.box_predictor.bbox_pred.bias", "loss_distill_box"),
    ],
)
def test_a_wrong_head_costs_its_own_loss_only(name, wrong):
    """So the teacher judges the boxes that the student proposed, not its own."""
    student = _dense()
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        student.get_parameter(name)[0] += 1
    for key, loss in zip(NAMES, _losses(Distiller(student, teacher))):
        assert loss > 1e-3 if key == wrong else abs(loss.item()) < 1e-6


def test_the_student_learns_and_the_teacher_does_not():
    student, teacher = _dense(), _dense("MODEL.ROI_BOX_HEAD.DROPOUT", 0.5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    distiller = Distiller(student, teacher)
    before = copy.deepcopy(teacher.state_dict())
    losses = _losses(distiller)
    assert not any(module.training for module in teacher.modules())
    assert all(loss > 0 for loss in losses)
    reached = []
    for loss in losses:
        loss.backward(retain_graph=True)
        reached.append({n for n, p in student.named_parameters() if p.grad is not None})
        student.zero_grad(set_to_none=True)
    features, proposals, boxes = reached
    assert features == {n for n, _ in student.backbone.named_parameters(prefix="backbone")}
    rpn_head = student.proposal_generator.named_parameters(prefix="proposal_generator")
    assert proposals == features | {n for n, _ in rpn_head}
    roi_heads = student.roi_heads.named_parameters(prefix="roi_heads")
    assert boxes == features | {n for n, _ in roi_heads}
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(module._forward_hooks for module in distiller.modules())


def test_within_distributed_data_parallel():
    student, teacher = _dense(), _dense()
    student.backbone.conv1_1.bias.data += 1
    alone = Distiller(copy.deepcopy(student), teacher)
    sum(_losses(alone)).backward()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(Distiller(student, teacher))
        for _ in range(2):  # the second would miss what the first left without a gradient
            parallel.zero_grad()
            sum(_losses(parallel)).backward()
    finally:
        dist.destroy_process_group()
    for a, b in zip(student.parameters(), alone.student.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_weights_and_evaluation():
    student, teacher = _dense(), _dense()
    with torch.no_grad():
        student.backbone.conv4_1.bias += 1
    once = _losses(Distiller(student, teacher))
    with EventStorage():
        losses = Distiller(student, teacher, features=3, proposals=0, boxes=0)(_batch())
    assert losses["loss_distill_features"].item() == pytest.approx(3 * once[0].item())
    assert not set(NAMES[1:]) & set(losses)
    distiller = Distiller(student, teacher).eval()
    boxes = [model(_batch())[0]["instances"].pred_boxes.tensor for model in (distiller, student)]
    assert torch.equal(*boxes)


@pytest.mark.parametrize(
    "opts, allowed, message",
    [
        (["MODEL.META_ARCHITECTURE", "RetinaNet", *FPN], "", "PROPOSALS: RetinaNet has no region"),
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork"], "proposals", "BOXES: .* has none; set"),
        (
            [
                *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
                *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
                *("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5]),
                *("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", [[10.0, 10.0, 5.0, 5.0]]),
            ],
            "proposals",
            "BOXES: .* has CascadeROIHeads; set",
        ),
    ],
)
def test_a_model_without_a_part_is_refused_unless_its_loss_is_left_out(opts, allowed, message):
    student = _dense(*opts)
    teacher = copy.deepcopy(student)
    with pytest.raises(InputError, match="MODEL.DISTILLATION." + message):
        Distiller(student, teacher)
    distiller = Distiller(student, teacher, proposals=float(bool(allowed)), boxes=0).train()
    with EventStorage():
        losses = distiller(_batch())
    assert losses["loss_distill_features"] == 0
    assert ("loss_distill_rpn" in losses) == bool(allowed)


def test_checkpoints_hold_the_student_and_resume(run_tool, config, tmp_path):
    out = tmp_path / "out"
    arguments = ["--config-file", config, "OUTPUT_DIR", out, *_teacher(config)]
    assert run_tool("train_net.py", *arguments)[0] == 0
    metrics = json.loads((out / "metrics.json").read_text().splitlines()[0])
    assert all(metrics[name] > 0 for name in NAMES)

    student = build_model(load_config(str(config)))
    saved = torch.load(out / "model_final.pth", weights_only=True)
    assert saved["model"].keys() == student.state_dict().keys()
    DetectionCheckpointer(student).load(str(out / "model_final.pth"))
    assert torch.equal(student.backbone.conv1_1.weight, saved["model"]["backbone.conv1_1.weight"])

    # In bfloat16 from here on.
    more = ["SOLVER.MAX_ITER", 3, "SOLVER.AMP.ENABLED", "True"]
    assert run_tool("train_net.py", "--resume", *arguments, *more)[0] == 0
    assert torch.load(out / "model_final.pth", weights_only=True)["iteration"] == 2

    evaluate = ["--eval-only", "MODEL.WEIGHTS", out / "model_final.pth"]
    evaluate += ["OUTPUT_DIR", tmp_path / "evaluated"]
    assert run_tool("train_net.py", "--config-file", out / "config.yaml", *evaluate)[0] == 0


def test_only_the_student_is_optimized(config, tmp_path):
    opts = [*_teacher(config), "OUTPUT_DIR", str(tmp_path / "out")]
    trainer = Trainer(load_config(str(config), opts))
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in trainer.model.student.parameters()}
    assert trainer.checkpointer.model is trainer.model.student


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "META_ARCHITECTURE is GeneralizedRCNN"),
        (["MODEL.ROI_BOX_HEAD.FC_DIM", 16], "teacher.pth: of another architecture"),
        (["MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]], "teacher.pth: trained on other images"),
        (["MODEL.DISTILLATION.TEACHER", "none.pth"], "none.pth: no such checkpoint"),
    ],
)
def test_a_teacher_that_does_not_fit_ends_in_one_line(config, opts, message):
    with pytest.raises(InputError, match="MODEL.DISTILLATION.TEACHER: .*" + message) as error:
        Trainer(load_config(str(config), [*_teacher(config), *opts]))
    assert "\n" not in str(error.value)
