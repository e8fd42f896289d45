"""Plans meet their targets at little loss, say how far one can go, and can be read and edited."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from torch import nn

from sparsedet.compress import (
    Cost,
    LayerPlan,
    LayerProfile,
    Option,
    Profile,
    Task,
    plan_for_targets,
    plan_to_entries,
    resolve_plan,
    sparsify_,
    uniform_plan,
)
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.candidates import dense_layers
from sparsedet.compress.plan import compact_weights
from sparsedet.compress.profile import profile_layers
from sparsedet.errors import InputError


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(24 * 9, 40),
    )


def _images(count):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, 3, 6, 6, generator=generator)
    return [F.interpolate(x, size=(32, 32), mode="bicubic") for x in coarse]


@pytest.fixture(scope="module")
def profile():
    return profile_layers(_network(), Task(_images(12)))


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("factor", [1, 1.5, 3, 6])
def test_the_parameters_that_were_asked_for(profile, factor):
    model = _network()
    before = _parameters(model)
    plan = plan_for_targets(profile, {"params": factor})
    sparsify_(model, plan)
    assert factor <= before / _parameters(model) < 1.1 * factor
    assert bool(plan) == (factor > 1)


def test_several_targets_at_once(profile):
    model, images = _network(), _images(2)
    plan = plan_for_targets(profile, {"params": 3, "flops": 4})
    report = calibrate_(model, plan, Task(images))
    assert report.parameters[0] / report.parameters[1] >= 3
    assert report.multiply_adds[0] / report.multiply_adds[1] >= 4


def test_what_is_cheap_to_lose_goes_first(profile):
    few_parameters = plan_for_targets(profile, {"params": 2})
    few_operations = plan_for_targets(profile, {"flops": 1.5})
    assert "9" in few_parameters and "9" not in few_operations


def test_errors_are_those_that_the_fit_finds(profile):
    plan = plan_for_targets(profile, {"flops": 3})
    for name, entry in plan.items():
        report = calibrate_(_network(), {name: entry}, Task(_images(12)))
        # Interpolated, from fewer turns, and with the prior in it.
        assert report.layers[name].error == pytest.approx(entry.error, rel=0.5)


def test_every_curve_falls(profile):
    for layer in profile.layers.values():
        dense, *options = layer.options
        assert dense == Option(None, dense.weights, 0.0)
        for _, curve in itertools.groupby(options, key=lambda option: option.plan.form):
            curve = list(curve)
            assert all(a.weights >= b.weights for a, b in zip(curve, curve[1:]))
            assert all(a.error <= b.error for a, b in zip(curve, curve[1:]))
            assert dense.weights > curve[0].weights > 2 * curve[-1].weights


def test_a_target_out_of_reach_says_how_far_one_can_go(profile):
    with pytest.raises(InputError, match=r"out of reach: params 500x \(at most (\d+\.\d)x\)") as e:
        plan_for_targets(profile, {"params": 500})
    most = float(str(e.value).partition("at most ")[2].partition("x")[0])
    plan_for_targets(profile, {"params": most - 0.1})


@pytest.mark.parametrize("factor", [0.5, float("nan"), float("inf"), "3"])
def test_a_target_that_is_no_factor(profile, factor):
    with pytest.raises(InputError, match="must be a factor of at least 1"):
        plan_for_targets(profile, {"params": factor})
    with pytest.raises(ValueError, match="unknown target 'time'; one of params, flops"):
        plan_for_targets(profile, {"time": 2})


def test_a_measured_cost_decides_the_pattern(profile):
    weights = {
        (name, option.plan): option.weights
        for name, layer in profile.layers.items()
        for option in layer.options
    }

    def milliseconds(name, plan):
        """Only rows gain time."""
        slow = plan is not None and plan.pattern not in (None, "rows")
        return weights[name, None] * 1.1 if slow else weights[name, plan]

    plan = plan_for_targets(profile, {"latency": 2}, {"latency": Cost(milliseconds, rest=100)})
    assert {entry.pattern for entry in plan.values()} <= {"rows", None}
    dense = sum(milliseconds(name, None) for name in profile.layers) + 100
    sparse = sum(milliseconds(name, plan.get(name)) for name in profile.layers) + 100
    assert dense / sparse >= 2


def test_close_to_the_best_of_all_plans():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        layers = {}
        for name in "abcd":
            weights, shape = torch.rand(2, generator=generator).tolist()
            options = [Option(None, int(900 * weights) + 100, 0.0)]
            for k in range(1, 7):
                share = 0.75**k
                plan = LayerPlan((100 - k,))
                error = 0.3 * (1 - share) ** (1 + 2 * shape) * (0.2 + shape)
                options.append(Option(plan, int(options[0].weights * share), error))
            layers[name] = LayerProfile(1.0, options)
        total = sum(layer.options[0].weights for layer in layers.values())
        plan = plan_for_targets(Profile(layers, total, total), {"params": 2})
        chosen = [
            next(o for o in layer.options if o.plan == plan.get(name))
            for name, layer in layers.items()
        ]
        best = min(
            _loss(options)
            for options in itertools.product(*(layer.options for layer in layers.values()))
            if 2 * sum(option.weights for option in options) <= total
        )
        assert 2 * sum(option.weights for option in chosen) <= total
        assert _loss(chosen) < 1.15 * best


def _loss(options):
    return sum(-math.log(1 - option.error) for option in options)


def test_names_choose_layers():
    model, images = _network(), Task(_images(2))
    profile = profile_layers(model, images, include=["3", "5", "9"], exclude=["5"])
    assert list(profile.layers) == ["3", "9"]
    patterns = profile_layers(model, images, include=["3"], patterns=["cross"]).layers["3"].options
    assert {option.plan.pattern for option in patterns[1:]} == {"cross"}
    with pytest.raises(InputError, match="'conv3'"):
        profile_layers(model, images, exclude=["conv3"])


def test_statistics_in_several_passes_give_the_same_profile(profile, monkeypatch):
    monkeypatch.setattr("sparsedet.compress.collector.MEMORY", 1)
    assert profile_layers(_network(), Task(_images(12))) == profile


def test_depthwise_convolutions_and_layers_that_never_run_stay_dense():
    model = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3, groups=4), "b": nn.Conv2d(4, 8, 3)})
    model["c"] = nn.Conv2d(4, 8, 3)
    profile = profile_layers(model, Task([torch.randn(1, 4, 9, 9)], lambda m, x: m["b"](m["a"](x))))
    assert list(profile.layers) == ["b"]


def test_a_model_that_is_compressed_already():
    model = _network()
    sparsify_(model, {"3": LayerPlan((4, 4), "rows")})
    with pytest.raises(InputError, match="3 is compressed already"):
        profile_layers(model, Task(_images(1)))


def test_the_model_is_left_alone():
    model = _network().train()
    before = copy.deepcopy(model.state_dict())
    profile_layers(model, Task(_images(2)), progress=True)
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))


def test_a_plan_can_be_read_edited_and_applied_again(profile, tmp_path):
    model = _network()
    plan = plan_for_targets(profile, {"params": 3})
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan_to_entries(plan, model), sort_keys=False))
    entries = yaml.safe_load(path.read_text())
    assert resolve_plan(model, entries) == plan
    assert resolve_plan(model, plan_to_entries(plan)) == plan

    name, entry = next((n, e) for n, e in entries.items() if "ranks" in e)
    assert entry["error"] == pytest.approx(plan[name].error, rel=0.01)
    entry["ranks"][0] += 1
    edited = sparsify_(_network(), resolve_plan(model, entries))
    unedited = sparsify_(_network(), plan)
    assert _parameters(edited) > _parameters(unedited)
    saved = sum(entry["before"] - entry["after"] for entry in entries.values())
    assert _parameters(model) - _parameters(unedited) == saved


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "densenet121", "googlenet"])
@pytest.mark.parametrize("pattern", ["rows", "cross"])
def test_a_uniform_plan_brings_any_convolutional_network_to_half(name, pattern):
    kwargs = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **kwargs)
    before = _parameters(model)
    layers, after = dense_layers(model), before
    for layer, entry in uniform_plan(model, pattern, 4.5).items():
        after += compact_weights(layers[layer], entry) - layers[layer].weight.numel()
    assert before / after >= 2
