"""Times of layers: what is run, how often, and what a planner makes of it."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparsedet import timing
from sparsedet.compress import (
    LayerPlan,
    LayerProfile,
    Option,
    Profile,
    Task,
    layer_times,
    plan_for_targets,
    sparsify_,
)
from sparsedet.compress.layer_times import measure_latency, time_layers
from sparsedet.compress.profile import profile_layers
from sparsedet.errors import InputError


class _Levels(nn.Module):
    """A shared head on two levels of a pyramid, and beside it what nothing calls."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.second = nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.head = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 24)
        self.unused = nn.Linear(16, 24)

    def forward(self, x):
        a = self.first(self.stem(x))
        b = self.second(a)
        return [self.fc(self.head(input=level).mean((2, 3))) for level in (a, b)]


def _model():
    torch.manual_seed(0)
    return _Levels()


def _images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, size, size, generator=generator) for size in sizes]


@pytest.fixture(scope="module")
def profile():
    return profile_layers(_model(), Task(_images(16, 16)), patterns=["rows", "checkerboard"])


def _of_rank_1(layer):
    """Weights of that form of a layer."""
    inputs, outputs = layer.weight.shape[:2][::-1]
    return inputs * layer.weight[0, 0].numel() + outputs


def _weights(module):
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


class _Work:
    """Stands in for the clock: a layer takes its number of weights, times the input's positions.

    Checkerboards take ten times as long, and the whole model what it is told. ``runs`` keeps the
    modules and the inputs of every call.
    """

    def __init__(self):
        self.whole, self.runs = 0.0, []

    def __call__(self, function, inputs):
        self.runs.append((function, inputs))
        if not isinstance(function, nn.Module):
            return self.whole
        slow = 10 if getattr(function, "pattern", None) == "checkerboard" else 1
        return slow * float(_weights(function) * sum(x[:, 0].numel() for x in inputs))


@pytest.fixture
def work(monkeypatch):
    work = _Work()
    monkeypatch.setattr(layer_times, "milliseconds", work)
    return work


def _positions(side):
    """In the input of each layer of _Levels on an image of this side."""
    half, quarter = (side // 2) ** 2, (side // 4) ** 2
    return {"stem": side**2, "first": side**2, "second": half, "head": half + quarter, "fc": 2}


def test_options_between_the_timed_ones_are_interpolated(profile, work):
    cost = measure_latency(_model(), profile, Task(_images(16)))
    for name, layer in profile.layers.items():
        positions = _positions(16)[name]
        for option in layer.options:
            slow = 10 if option.plan and option.plan.pattern == "checkerboard" else 1
            expected = slow * option.weights * positions
            assert cost.layer(name, option.plan) == pytest.approx(expected)


def test_a_layer_is_timed_on_what_it_sees(profile, work):
    model = _model().to(memory_format=torch.channels_last).double()
    images = [x.double().contiguous(memory_format=torch.channels_last) for x in _images(16)]
    measure_latency(model, profile, Task(images))
    seen = {id(module): inputs for module, inputs in work.runs}
    shapes = {
        name: [tuple(x.shape) for x in seen[id(model.get_submodule(name))]]
        for name in profile.layers
    }
    assert shapes == {
        "stem": [(1, 3, 16, 16)],
        "first": [(1, 16, 16, 16)],
        "second": [(1, 16, 8, 8)],
        "head": [(1, 16, 8, 8), (1, 16, 4, 4)],
        "fc": [(1, 16), (1, 16)],
    }
    inputs = [x for module in (model.stem, model.head) for x in seen[id(module)]]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in inputs)
    assert all(x.dtype == torch.double for x in inputs)


def test_the_batch_of_median_size(profile, work):
    images = _images(32, 8, 16)
    cost = measure_latency(_model(), profile, Task(images))
    assert cost.layer("head", None) == 16 * 16 * 9 * _positions(16)["head"]
    whole = [inputs for function, inputs in work.runs if not isinstance(function, nn.Module)]
    assert all(inputs[0] is images[2] for inputs in whole)


def test_few_options_are_run_and_equal_layers_share_them(profile, work):
    model = _model()
    equal = Profile({name: profile.layers[name] for name in ("first", "second")}, 1, 1.0)
    batches = [torch.randn(1, 16, 8, 8)]
    cost = measure_latency(model, equal, Task(batches, lambda m, x: (m.first(x), m.second(x))))
    modules = {id(module) for module, _ in work.runs if isinstance(module, nn.Module)}
    assert len(modules) == 2 + 2 * 3 and id(model.second) not in modules
    assert cost.layer("first", None) == cost.layer("second", None) == 16 * 16 * 9 * 64
    smaller = profile.layers["second"].options[-1].plan
    assert cost.layer("second", smaller) < cost.layer("second", None)


def test_the_rest_is_what_the_layers_leave_of_the_whole(profile, work):
    tiny = {
        name: _of_rank_1(_model().get_submodule(name)) * positions
        for name, positions in _positions(16).items()
    }
    work.whole = sum(tiny.values()) + 1000.0
    assert measure_latency(_model(), profile, Task(_images(16))).rest == pytest.approx(1000.0)
    work.whole = 1.0
    assert measure_latency(_model(), profile, Task(_images(16))).rest == 0.0


def test_more_weights_never_cost_less(work, monkeypatch):
    times = {1: 0.5, 2: 4.0, 4: 3.0, 8: 9.0}  # milliseconds by rank, one of which is noise
    monkeypatch.setattr(layer_times, "milliseconds", lambda f, inputs: times[getattr(f, "rank", 8)])
    options = [Option(LayerPlan((rank,)), 40 * rank, 0.1) for rank in (8, 7, 4, 3, 2)]
    profile = Profile({"fc": LayerProfile(3.0, [Option(None, 384, 0.0), *options])}, 1, 1.0)
    model = nn.ModuleDict({"fc": nn.Linear(16, 24)})
    cost = measure_latency(model, profile, Task([torch.randn(3, 16)], lambda m, x: m["fc"](x)))
    milliseconds = [cost.layer("fc", option.plan) for option in options]
    assert milliseconds == [9.0, 4.0 + 5.0 * 3 / 4, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("seed", range(5))
def test_plans_reach_what_can_be_reached_and_take_nothing_slower(profile, work, monkeypatch, seed):
    generator = torch.Generator().manual_seed(seed)
    luck = {}  # by module, not by its id, which another may get later

    def milliseconds(function, inputs):
        if not isinstance(function, nn.Module):
            return 2000.0
        lucky = luck.setdefault(function, torch.rand((), generator=generator).item())
        return _weights(function) ** 0.5 * (0.5 + 2 * lucky)

    monkeypatch.setattr(layer_times, "milliseconds", milliseconds)
    cost = measure_latency(_model(), profile, Task(_images(16)))
    costs = {"latency": cost}

    def total(plan):
        return cost.rest + sum(cost.layer(name, plan.get(name)) for name in profile.layers)

    with pytest.raises(InputError, match=r"out of reach: latency 1000x \(at most") as error:
        plan_for_targets(profile, {"latency": 1000}, costs)
    most = float(str(error.value).partition("at most ")[2].partition("x")[0]) - 0.05
    for factor in (1, (1 + most) / 2, most):
        plan = plan_for_targets(profile, {"latency": factor}, costs)
        assert total({}) / total(plan) >= factor - 1e-6
        assert all(cost.layer(name, plan[name]) < cost.layer(name, None) for name in plan)


def test_times_of_a_plan(profile, work):
    plan = {
        "head": LayerPlan((4, 3), "rows"),
        "fc": LayerPlan((5,)),
        "unused": LayerPlan((2,)),
    }
    tiny = (16 * 9 + 16) * 80 + (16 + 24) * 2
    work.whole = tiny + 1000.0
    times, rest = time_layers(_model(), plan, Task(_images(16)))
    assert rest == 1000
    assert times == {
        "head": (16 * 16 * 9 * 80, (4 * (16 * 6 + 16) + 3 * (16 * 3 + 16)) * 80),
        "fc": (16 * 24 * 2, 5 * (16 + 24) * 2),
        "unused": (0, 0),
    }


def test_turns_and_rounds(monkeypatch):
    """On a clock that the functions themselves move."""
    clock, order = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(timing, "now", lambda: clock.now)
    monkeypatch.setattr(layer_times, "SECONDS", 0.25)

    def function(name, seconds):
        def run(x):
            order.append(name)
            disturbed = len(order) in (1, 5)
            clock.now += seconds + x + 100 * disturbed

        return run

    inputs = [0.0, 0.25]
    slow = layer_times._rounds([(function("a", 1), inputs), (function("b", 2), inputs)])
    assert slow == [(102250.0, *[2250.0] * 4), (4250.0,) * 5]
    assert order == ["a", "a", "b", "b"] * (1 + layer_times.ROUNDS)
    order[:] = ["before"] * 5
    assert layer_times._rounds([(function("c", 1 / 256), [0.0])]) == [(1000 / 256,) * 64]
    assert order[5:] == ["c"] * (1 + 64)


def test_a_real_measurement_leaves_the_model_alone(profile):
    model = _model().train()
    before = copy.deepcopy(model.state_dict())
    cost = measure_latency(model, profile, Task(_images(16)), progress=True)
    assert all(cost.layer(n, o.plan) > 0 for n, p in profile.layers.items() for o in p.options)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))


def test_bad_models_and_batches(profile):
    model = _model()
    sparsify_(model, {"head": LayerPlan((4, 4), "rows")})
    with pytest.raises(InputError, match="'head', which is compressed already"):
        measure_latency(model, profile, Task(_images(16)))
