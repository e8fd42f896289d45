"""Calibration that goes on from held outputs gives what full runs give, and computes less."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsedet.compress import Task, replay, uniform_plan
from sparsedet.compress.calibrate import calibrate_


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(6))

    def forward(self, x):
        for conv in self.convs:
            x = F.relu_(conv(x))
        return x


class Pyramid(nn.Module):
    """A residual block that works in place, and a head that is shared between two levels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block1 = nn.Conv2d(8, 8, 3, padding=1)
        self.block2 = nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, 2, padding=1)
        self.head = nn.Conv2d(8, 8, 3, padding=1)
        self.score = nn.Conv2d(8, 2, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu_(self.stem(x))
        y = self.block2(F.relu_(self.block1(x)))
        y += x
        fine = F.relu_(y)
        coarse = self.down(fine)
        levels = [self.score(F.relu(self.head(level))) for level in (fine, coarse)]
        return self.fc(coarse.mean((2, 3))), levels


def _calibrate(model, images, plan):
    torch.manual_seed(0)
    calls = []

    def count(module, args):
        calls.append(module)

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(count)
    report = calibrate_(model, plan, Task(images))
    return model, report, calls


@pytest.mark.parametrize("kind", [Chain, Pyramid])
@pytest.mark.parametrize("memory", [0, 30_000, 2**31])
def test_same_result_whatever_is_held(kind, memory, monkeypatch):
    torch.manual_seed(0)
    model = kind()
    images = [torch.randn(1, 3, 16, 16 + 4 * i) for i in range(3)]
    plan = uniform_plan(model, "checkerboard", 2)
    monkeypatch.setattr(replay, "MEMORY", 0)
    expected, expected_report, _ = _calibrate(model, images, plan)
    monkeypatch.setattr(replay, "MEMORY", memory)
    got, report, _ = _calibrate(model, images, plan)
    assert report == expected_report
    for key, value in expected.state_dict().items():
        assert torch.equal(got.state_dict()[key], value), key


def count_runs(monkeypatch):
    """The compact layers that run from now on, in their order."""
    computed = []
    forward = replay.SparseFusionConv2d.forward

    def count(self, x):
        computed.append(self)
        return forward(self, x)

    monkeypatch.setattr(replay.SparseFusionConv2d, "forward", count)
    return computed


@pytest.mark.parametrize("memory", [2**31, 5 * 8 * 16 * 16 * 4])  # for one output of each image
def test_a_chain_computes_each_compact_layer_once_for_each_image(memory, monkeypatch):
    monkeypatch.setattr(replay, "MEMORY", memory)
    torch.manual_seed(0)
    model = Chain()
    computed = count_runs(monkeypatch)
    images = [torch.randn(1, 3, 16, 16) for _ in range(5)]
    calibrate_(model, uniform_plan(model, "rows", 2), Task(images))
    compact = [m for m in model.modules() if isinstance(m, replay.SparseFusionConv2d)]
    assert len(compact) == 6
    assert [computed.count(layer) for layer in compact] == [5, 5, 5, 5, 5, 0]


def test_a_pooled_input_is_held_where_what_it_was_pooled_from_is_too_large(monkeypatch):
    """Each compact layer still runs once for each image, in the memory of a pooled map."""

    class Pooled(Chain):
        def forward(self, x):
            for i, conv in enumerate(self.convs):
                x = conv(x)
                if i % 2:
                    x = F.max_pool2d(x, 2)
            return x

    torch.manual_seed(0)
    model = Pooled()
    images = [torch.randn(1, 3, 16, 16) for _ in range(2)]
    plan = uniform_plan(model, "rows", 2)
    expected, _, _ = _calibrate(model, images, plan)
    monkeypatch.setattr(replay, "MEMORY", 2 * 8 * 8 * 8 * 4)
    computed = count_runs(monkeypatch)
    got, _, _ = _calibrate(model, images, plan)
    compact = [m for m in got.modules() if isinstance(m, replay.SparseFusionConv2d)]
    # The output of the first two is too large, and so is the input of the second.
    assert [computed.count(layer) for layer in compact] == [4, 2, 2, 2, 2, 0]
    for key, value in expected.state_dict().items():
        assert torch.equal(got.state_dict()[key], value), key


def test_nothing_is_left_behind():
    torch.manual_seed(0)
    model = Pyramid()
    calibrate_(model, uniform_plan(model, "rows", 2), Task([torch.randn(1, 3, 16, 16)]))
    assert not any("forward" in vars(module) for module in model.modules())
