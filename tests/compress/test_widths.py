"""Layers with fewer channels: exact where that can be, under one budget, undone on errors."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from sparsedet.compress import (
    LayerPlan,
    Task,
    compress_,
    count_parameters,
    plan_for_targets,
    plan_to_entries,
    read_plan,
    resolve_plan,
    sparsify_,
    write_plan,
)
from sparsedet.compress import layer_times as layer_times_module
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.links import find_links
from sparsedet.compress.profile import profile_layers
from sparsedet.compress.request import Request
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, SparseFusionConv2d


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times_module, "SECONDS", 0)


def _images(count, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 2, 3, 6, 6, generator=generator)
    return [F.interpolate(x, size=(size, size), mode="bicubic") for x in coarse]


def _with_statistics(model):
    """Batch norms as after training."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return model


def _chain():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        Conv2d(16, 16, 3, bias=False, norm=FrozenBatchNorm2d(16), activation=F.relu),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )
    return _with_statistics(model).eval()


def _error(model, dense, batches):
    with torch.no_grad():
        y, expected = (torch.cat([m(x) for x in batches]) for m in (model, dense))
    return ((y - expected).square().sum() / (expected - expected.mean(0)).square().sum()).item()


def _repeat_channels(model):
    """Let the second half of each layer's outputs be multiples of the first, past norm and ReLU."""
    with torch.no_grad():
        for layer, norm in ((model[0], model[1]), (model[4], model[4].norm), (model[7], None)):
            half, scale = len(layer.weight) // 2, 1.5
            layer.weight[half:] = layer.weight[:half] * scale
            if layer.bias is not None:
                layer.bias[half:] = layer.bias[:half] * scale
            if norm is not None:
                norm.weight[half:] = norm.weight[:half]
                norm.bias[half:] = norm.bias[:half] * scale
                norm.running_mean[half:] = norm.running_mean[:half] * scale
                norm.running_var[half:] = norm.running_var[:half]
    return model


HALF = {name: LayerPlan(out_channels=count) for name, count in (("0", 8), ("4", 8), ("7", 12))}


@pytest.fixture
def little_ridge(monkeypatch):
    """Hardly anything but the data counts, and not how products of a chunk round in float32."""
    monkeypatch.setattr("sparsedet.compress.moments.RIDGE", 1e-3)
    monkeypatch.setattr("sparsedet.compress.moments.CHUNK", 16)


def test_channels_that_follow_from_others_cost_nothing(little_ridge):
    model = _repeat_channels(_chain())
    dense, images = copy.deepcopy(model), _images(80)
    report = calibrate_(model, HALF, Task(images))
    assert _error(model, dense, _images(4, seed=1)) < 1e-7
    assert all(layer.error < 1e-7 for layer in report.layers.values())
    assert [model[i].weight.shape[:2] for i in (0, 4, 7, 9)] == [(8, 3), (8, 8), (12, 32), (10, 12)]
    assert model[1].num_features == 8 and model[4].norm.num_features == 8
    assert report.parameters == (count_parameters(dense), count_parameters(model))
    work = 256 * 8 * 27 + 36 * 8 * 72 + 12 * 32 + 10 * 12
    assert report.multiply_adds[1] == 2 * work


def test_mixtures_of_other_channels_cost_nothing(little_ridge):
    """Without anything between, any linear mixture can be dropped."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 6, 3)).double()
    with torch.no_grad():
        mixing = torch.randn(12, 5).double()
        model[0].weight.copy_((mixing @ torch.randn(5, 27).double()).view(12, 3, 3, 3))
    dense, images = copy.deepcopy(model), [x.double() for x in _images(40)]
    calibrate_(model, {"0": LayerPlan(out_channels=5)}, Task(images))
    assert _error(model, dense, [x.double() for x in _images(3, seed=1)]) < 1e-6


def test_the_reader_is_the_least_squares_solution(little_ridge):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 9))
    dense = copy.deepcopy(model)
    rows = [torch.randn(500, 20) * 0.9 ** torch.arange(20) for _ in range(8)]
    calibrate_(model, {"0": LayerPlan(out_channels=10)}, Task(rows))
    with torch.no_grad():
        x, y = (torch.cat([m(r) for r in rows]).double() for m in (model[:2], dense))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = torch.linalg.lstsq(x, y).solution.T
    torch.testing.assert_close(model[2].weight.double(), expected, rtol=1e-3, atol=1e-4)


def test_ranks_and_widths_in_one_plan():
    model, images = _chain(), _images(40)
    dense = copy.deepcopy(model)
    plan = {
        "0": LayerPlan((6,), "whole", out_channels=12),
        "4": LayerPlan((8, 6), "rows", out_channels=14),
        "7": LayerPlan((8,)),
    }
    report = calibrate_(model, plan, Task(images))
    assert isinstance(model[4], SparseFusionConv2d) and isinstance(model[7], LowRankLinear)
    assert (model[4].in_channels, model[4].out_channels, model[7].in_features) == (12, 14, 56)
    assert report.layers["4"].plan == LayerPlan((8, 6), "rows", in_channels=12, out_channels=14)
    assert _error(model, dense, _images(4, seed=1)) < 0.3
    assert str(report.layers["4"].plan) == "rows 8 + 6, 12 in, 14 out"


def test_errors_that_matter_less_choose_other_channels():
    """The reader's errors count as its sensitivity says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(8, 3, 3, 3))
        model[1].weight.copy_(torch.eye(8)[:, :, None, None])
        model[2].weight.zero_()
        model[2].weight[:, 5:] = torch.randn(4, 3)[:, :, None, None] * 100
    dense, task = copy.deepcopy(model), Task(_images(12), answers=["2"])
    compress_(model, task, Request(plan={"0": {"out_channels": 3}}))
    torch.testing.assert_close(model[0].weight, dense[0].weight[5:], rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def profile():
    model, task = _chain(), Task(_images(12))
    return profile_layers(model, task, links=find_links(model, task)[0])


def test_one_budget_for_ranks_and_widths(profile):
    assert set(profile.widths) == {"0", "4", "7"}
    for width in profile.widths.values():
        errors = [option.error for option in width.options]
        assert errors[0] == 0 and errors == sorted(errors)
    for factor in (1.5, 3, 6):
        plan = plan_for_targets(profile, {"flops": factor, "params": factor})
        assert any(entry.out_channels for entry in plan.values())
        report = calibrate_(_chain(), plan, Task(_images(12)))
        for before, after in (report.parameters, report.multiply_adds):
            # Norms and biases, which the planner leaves as they are, become fewer as well.
            assert factor <= before / after < 1.35 * factor


def test_out_of_reach_counts_widths_too(profile):
    with pytest.raises(InputError, match=r"at most (\d+\.\d)x") as error:
        plan_for_targets(profile, {"flops": 5000})
    most = float(str(error.value).partition("at most ")[2].partition("x")[0])
    plan_for_targets(profile, {"flops": most - 0.1})


def test_the_whole_verb_and_the_same_again_from_its_plan(tmp_path):
    model, images = _chain().train(), _images(12)
    dense = copy.deepcopy(model).eval()
    result = compress_(model, Task(images), Request(flops=3, width=True))
    assert any("out_channels" in entry for entry in result.plan.values())
    assert model.training and model[1].training and model[4].training
    result.save(tmp_path / "compact")

    fresh = copy.deepcopy(dense)
    plan = resolve_plan(fresh, read_plan(str(tmp_path / "compact" / "plan.yaml")))
    sparsify_(fresh, plan, project=False)
    state = torch.load(tmp_path / "compact" / "model.pth", weights_only=True)["model"]
    fresh.load_state_dict(state)
    x = _images(1, seed=2)[0]
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))

    again = copy.deepcopy(dense)
    compress_(again, Task(images), Request(plan=tmp_path / "compact" / "plan.yaml"))
    for a, b in zip(again.state_dict().values(), state.values()):
        assert torch.equal(a, b)


def test_width_where_nothing_can_be_narrowed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3))
    result = compress_(model, Task(_images(6)), Request(params=2, width=True))
    assert not any("out_channels" in entry for entry in result.plan.values())


class _Bottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)

    def forward(self, x):
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        return F.relu_(self.bn3(self.conv3(y)).add_(x))


def test_a_residual_network_keeps_what_is_summed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), _Bottleneck(), _Bottleneck(), nn.Conv2d(32, 8, 1))
    model, images = _with_statistics(model).eval(), _images(8)
    dense = copy.deepcopy(model)
    result = compress_(
        model, Task(images, answers=["3"]), Request(flops=2, width=True, patterns=["whole"])
    )
    narrow = {name for name, entry in result.plan.items() if "out_channels" in entry}
    assert narrow and narrow <= {"1.conv1", "1.conv2", "2.conv1", "2.conv2"}
    for name in narrow:
        entry = result.plan[name]
        assert entry["channelwise"] == [name.replace("conv", "bn")]
        assert model.get_submodule(entry["channelwise"][0]).num_features == entry["out_channels"]
    again = sparsify_(copy.deepcopy(dense), resolve_plan(dense, result.plan), project=False)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(images[0]), model(images[0]))


def test_an_interruption_leaves_the_model_as_it_was():
    model = _chain()
    before, calls = dict(model.named_modules()), 0

    def forward(model, x):
        nonlocal calls
        if isinstance(model[0], nn.Conv2d) and model[0].out_channels == 8 and len(x) == 2:
            calls += 1
            if calls == 9:
                raise KeyboardInterrupt
        model(x)

    with pytest.raises(KeyboardInterrupt):
        calibrate_(model, HALF, Task(_images(3), forward))
    assert dict(model.named_modules()) == before and model[1].num_features == 16


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"9": {"out_channels": 4}}, "plan entry '9': .* the model gives it to its caller"),
        ({"0": {"out_channels": 17}}, "plan entry '0': out_channels must be 1 to 16, not 17"),
        ({"0": {"out_channels": 0}}, "plan entry '0': out_channels must be 1 to 16, not 0"),
        ({"0": {"out_channels": True}}, "plan entry '0': out_channels must be 1 to 16, not True"),
        ({"0": {"out_channels": 8, "channelwise": ["2"]}}, "channelwise: '2' is no batch norm"),
        ({"0": {"out_channels": 8, "channelwise": "1"}}, "channelwise must be a list of names"),
        ({"0": {"channelwise": ["1"]}}, "channelwise goes with out_channels"),
        ({"4": {"in_channels": 8}}, "plan entry '4': in_channels is 8, but it gets all"),
        (
            {"0": {"out_channels": 8}, "4": {"in_channels": 6}},
            "plan entry '4': in_channels is 6, but it gets 8",
        ),
        ({"0": {"out_channels": 8, "ranks": [4]}}, "plan entry '0': keys must be"),
    ],
)
def test_plans_that_do_not_fit(plan, message):
    model = _chain()
    before = dict(model.named_modules())
    with pytest.raises(InputError, match=message) as error:
        compress_(model, Task(_images(2)), Request(plan=plan))
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == before


def test_images_are_needed():
    with pytest.raises(InputError, match="width needs calibration"):
        Request(params=2, width=True, calibrate=False)
    with pytest.raises(InputError, match="'0': .* cannot be done from the weights alone"):
        compress_(
            _chain(), Task(_images(1)), Request(plan={"0": {"out_channels": 8}}, calibrate=False)
        )


def test_entries_are_read_as_they_are_written(tmp_path):
    plan = {
        "0": LayerPlan(out_channels=8, channelwise=("1",)),
        "4": LayerPlan((4, 4), "rows", in_channels=8, out_channels=12),
        "7": LayerPlan((5,), in_channels=48),
    }
    entries = plan_to_entries(plan, _chain())
    write_plan(entries, tmp_path / "plan.yaml")
    assert resolve_plan(_chain(), read_plan(str(tmp_path / "plan.yaml"))) == plan
    assert entries["0"] == {"out_channels": 8, "channelwise": ["1"], "before": 432, "after": 216}
    assert entries["7"]["after"] == 5 * (48 + 24)


def test_a_width_is_planned_only_where_it_is_no_worse(profile):
    """By the planner's own measure, whatever the greedy steps were."""

    def loss(plan):
        errors = [entry.error or 0.0 for entry in plan.values()]
        for name, width in profile.widths.items():
            kept = name in plan and plan[name].out_channels
            errors += [o.error for o in width.options if o.channels == kept]
        return -sum(math.log1p(-error) for error in errors)

    ranks = replace(profile, widths={})
    for factor in (1.3, 2, 4, 8):
        plans = [plan_for_targets(some, {"flops": factor}) for some in (profile, ranks)]
        assert loss(plans[0]) <= loss(plans[1]) + 1e-9
