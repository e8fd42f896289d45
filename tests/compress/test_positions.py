"""A layer is fitted only where it sees the same positions whatever comes before it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import sparsedet
from sparsedet.compress import Request, Task, compress_
from sparsedet.compress.positions import check_positions
from sparsedet.errors import InputError


class Chooser(nn.Module):
    """Cuts the brightest pixels out of its features, the brightest first."""

    def forward(self, x):
        best = x.mean(1).flatten(1).topk(12, dim=1).indices
        return best[:, None].expand(-1, x.shape[1], -1)


class TwoStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.chooser = Chooser()
        self.head = nn.Linear(16, 32)

    def forward(self, x):
        x = self.trunk(x)
        return self.head(x.flatten(2).gather(2, self.chooser(x)).transpose(1, 2))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoStage().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [F.interpolate(torch.randn(4, 3, 6, 6), size=24, mode="bilinear") for _ in range(6)]


PLAN = {"trunk.2": {"pattern": "rows", "ranks": [6, 4]}, "head": {"rank": 6}}


def test_a_head_whose_rows_depend_on_the_trunk_is_refused(model, batches):
    with pytest.raises(InputError, match="^head: the positions that it sees depend on"):
        compress_(model, Task(batches), Request(plan=PLAN))
    assert isinstance(model.head, nn.Linear)


def test_without_the_head_it_is_compressed(model, batches):
    result = compress_(model, Task(batches), Request(plan={"trunk.2": PLAN["trunk.2"]}))
    assert result.layers["trunk.2"].error < 0.5


def test_with_the_choice_held_fixed_it_is_fitted(model, batches):
    task = Task(batches, fixed=["chooser"])
    error = compress_(model, task, Request(plan=PLAN)).layers["head"].error
    # As a fit to the right rows: a part of what stays if none of the output is explained.
    assert error < 0.5


def test_what_is_fixed_belongs_to_one_model(model, batches):
    task = Task(batches[:1], fixed=["chooser"])
    task.start(model)
    first = task.forward(model, batches[0])
    torch.manual_seed(2)
    other = TwoStage().eval()
    task.start(other)
    assert torch.equal(task.forward(other, batches[0]), other(batches[0]))
    task.start(model)
    assert torch.equal(task.forward(model, batches[0]), first)


def test_a_fixed_module_that_is_not_there(model, batches):
    with pytest.raises(InputError, match="fixed: 'rpn' is not a module of the model"):
        Task(batches, fixed=["rpn"]).forward(model, batches[0])


def test_deep_networks_of_any_kind_pass():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(12):
        layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    model = nn.Sequential(*layers, nn.MaxPool2d(4), nn.Flatten(2), nn.Linear(9, 9)).eval()
    names = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    check_positions(model, names, Task([torch.randn(2, 3, 12, 12)]))


def test_torchvision_detectors_keep_their_boxes():
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0,
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=50, min_size=64, max_size=96,
    ).eval()  # fmt: skip
    pictures = [F.interpolate(torch.rand(1, 3, 8, 8), size=(64, 80))[0] for _ in range(4)]
    batches = [[picture] for picture in pictures]
    plan = {"roi_heads.box_head.fc6": {"rank": 32}, "backbone.fpn.layer_blocks.0.0": {
        "pattern": "rows", "ranks": [64, 32]}}  # fmt: skip
    with pytest.raises(InputError, match="positions"):
        sparsedet.compress_(model, batches=batches, forward=lambda m, x: m(x), plan=plan)
    result = sparsedet.compress_(model, batches=batches, plan=plan)
    assert result.layers["roi_heads.box_head.fc6"].error < 0.5
    assert isinstance(model.roi_heads.box_predictor.cls_score, nn.Linear)
