"""A compressed detector learns from its dense twin, beside the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import StandardROIHeads
from torch import nn

from ..checkpoint import SparseDetCheckpointer, model_class_names
from ..errors import InputError
from ..hooks import attached
from ..modeling import dense_config

RPN_BETA = 1 / 9
"""Where smooth L1 of the RPN's deltas turns linear: Faster R-CNN's own value."""


def build_distiller(cfg: CfgNode, student: nn.Module) -> Distiller:
    """``student`` beside the teacher that ``MODEL.DISTILLATION`` names.

    Raises:
        InputError: the model of ``cfg`` is not a compressed one, the teacher's checkpoint is not
            its dense twin's, or the model lacks what a loss compares.
    """
    keys = cfg.MODEL.DISTILLATION
    dense = dense_config(cfg)
    if dense is cfg:
        raise InputError(
            "MODEL.DISTILLATION.TEACHER: only a model that sparsedet compress wrote has a dense "
            f"twin, and MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; leave it empty"
        )
    teacher = build_model(dense)
    teacher.class_names = model_class_names(student)  # others are refused
    try:
        SparseDetCheckpointer(teacher, strict=True).load(keys.TEACHER)
    except InputError as error:
        raise InputError(f"MODEL.DISTILLATION.TEACHER: {error}") from error
    return Distiller(
        student, teacher, features=keys.FEATURES, proposals=keys.PROPOSALS, boxes=keys.BOXES
    )


class Distiller(nn.Module):
    """In training, a student's losses and those against its teacher; otherwise the student.

    The teacher, frozen and in eval mode, sees the student's images, and its box head the proposals
    that the student has sampled. With the weight of each:

    - ``loss_distill_features``: :func:`feature_loss` of the backbones' outputs;
    - ``loss_distill_rpn``: :func:`proposal_loss` of the RPN heads' outputs;
    - ``loss_distill_box``: :func:`box_loss` of the box predictors' outputs.

    Args:
        student: a detectron2 model.
        teacher: one whose features and outputs have the same shapes. It is frozen in place.
        features, proposals, boxes: weights; 0 leaves a loss out.

    Raises:
        InputError: ``proposals`` of a model without an RPN, or ``boxes`` of one whose RoI heads
            are not ``StandardROIHeads``.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        features: float = 1.0,
        proposals: float = 1.0,
        boxes: float = 1.0,
    ):
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False)
        self.features, self.proposals, self.boxes = features, proposals, boxes
        self.train(student.training)
        self._watched = {"backbone": student.backbone}
        if proposals:
            rpn = getattr(student, "proposal_generator", None)
            if not hasattr(rpn, "rpn_head"):
                raise InputError(
                    f"MODEL.DISTILLATION.PROPOSALS: {type(student).__name__} has no region "
                    "proposal network; set it to 0"
                )
            self._watched["rpn_head"] = rpn.rpn_head
        if boxes:
            heads = getattr(student, "roi_heads", None)
            # Its subclasses in detectron2 run several box heads, or turned boxes.
            if type(heads) is not StandardROIHeads:
                raise InputError(
                    "MODEL.DISTILLATION.BOXES: works with StandardROIHeads, and this "
                    f"{type(student).__name__} has {type(heads).__name__ if heads else 'none'}; "
                    "set it to 0"
                )
            self._watched["box_pooler"] = heads.box_pooler
            self._watched["box_predictor"] = heads.box_predictor

    def train(self, mode: bool = True) -> Distiller:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        if not self.training:
            return self.student(batched_inputs)
        with _record(self._watched) as calls:
            losses = self.student(batched_inputs)
        (images,), features = calls["backbone"]
        with torch.no_grad():
            targets = self.teacher.backbone(images)
        if self.features:
            loss = feature_loss(features, targets)
            losses["loss_distill_features"] = self.features * loss
        if self.proposals:
            rpn = self.teacher.proposal_generator
            with torch.no_grad():
                target = rpn.rpn_head([targets[name] for name in rpn.in_features])
            loss = proposal_loss(calls["rpn_head"][1], target)
            losses["loss_distill_rpn"] = self.proposals * loss
        if self.boxes:
            heads = self.teacher.roi_heads
            (_, boxes), _ = calls["box_pooler"]
            with torch.no_grad():
                pooled = heads.box_pooler([targets[name] for name in heads.box_in_features], boxes)
                target = heads.box_predictor(heads.box_head(pooled))
            loss = box_loss(calls["box_predictor"][1], target)
            losses["loss_distill_box"] = self.boxes * loss
        return losses


def feature_loss(
    student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Mean square difference over the teacher's mean square; mean over the levels.

    Args:
        student, teacher: maps (N, C, H, W) by level.
    """
    errors = []
    for level, target in teacher.items():
        target = target.float()
        scale = target.square().mean().clamp(min=1e-12)
        errors.append(F.mse_loss(student[level].float(), target) / scale)
    return torch.stack(errors).mean()


def proposal_loss(
    student: Sequence[Sequence[torch.Tensor]], teacher: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """KL divergence of objectness, and smooth L1 of deltas weighted by the teacher's objectness.

    The divergence is the cross entropy with the teacher's sigmoid, less its minimum. Both are sums
    over all anchors, divided by the number that the teacher expects to be objects: nearly all
    others are sure background, and would drown the rest in a mean.

    Args:
        student, teacher: logits (N, A, H, W) of each level, and deltas (N, A * B, H, W).
    """
    loss = objects = 0
    for logits, deltas, target_logits, target_deltas in zip(*student, *teacher):
        objectness = target_logits.float().sigmoid()
        entropies = [
            F.binary_cross_entropy_with_logits(values.float(), objectness, reduction="none")
            for values in (logits, target_logits)
        ]
        distance = F.smooth_l1_loss(
            deltas.float(), target_deltas.float(), beta=RPN_BETA, reduction="none"
        )
        distance = distance.unflatten(1, (logits.shape[1], -1)).sum(2)
        loss += (entropies[0] - entropies[1] + objectness * distance).sum()
        objects += objectness.sum()
    return loss / objects.clamp(min=1)


def box_loss(
    student: tuple[torch.Tensor, torch.Tensor], teacher: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """KL divergence of class distributions, and L1 of the deltas; mean over the boxes.

    Each class's deltas are weighted by the teacher's probability of that class.

    Args:
        student, teacher: scores (R, K + 1), background last, whose softmax (temperature 1) is the
            distribution, and deltas (R, K * 4), or (R, 4) for all classes.
    """
    (scores, deltas), (target_scores, target_deltas) = student, teacher
    target = target_scores.float().log_softmax(1)
    divergence = F.kl_div(scores.float().log_softmax(1), target, reduction="sum", log_target=True)
    distance = (deltas.float() - target_deltas.float()).abs().unflatten(1, (-1, 4)).sum(2)
    foreground = target[:, :-1].exp()
    return (divergence + (foreground * distance).sum()) / max(len(scores), 1)


@contextmanager
def _record(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple]]:
    """The (arguments, output) of each module's last call in the block."""
    calls: dict[str, tuple] = {}

    def keep(name, module, args, output):
        calls[name] = (args, output)

    with attached(m.register_forward_hook(partial(keep, name)) for name, m in modules.items()):
        yield calls
