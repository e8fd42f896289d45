"""The dense model runs once for planning and fitting, and both find what they find alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsedet.compress import Task, uniform_plan
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.links import find_links
from sparsedet.compress.plan import LayerPlan
from sparsedet.compress.profile import profile_layers
from sparsedet.compress.widths import with_readers

BATCHES = 7


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(16 * 9, 20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )


def _samples(calls):
    return sum(len(outputs) for _, outputs in calls)


def _task():
    coarse = torch.randn(BATCHES, 1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return Task([F.interpolate(x, size=(24, 24), mode="bicubic") for x in coarse], answers=["8"])


def test_a_profile_that_records_is_the_same_and_costs_one_run_of_each_batch(model):
    task = _task()
    expected = profile_layers(model, task, exclude=["8"], every=3)
    runs = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    found = profile_layers(model, task, exclude=["8"], every=3, record=True)
    assert found == expected
    assert len(runs) == BATCHES  # what is counted was known


def test_layers_that_become_narrower_are_fitted_to_the_outputs_that_they_keep(model):
    task = _task()
    links, _ = find_links(model, task)
    found = profile_layers(model, task, exclude=["8"], every=3, links=links, record=True)
    plan = {"0": LayerPlan((4,), "whole", out_channels=9), "2": LayerPlan(out_channels=10)}
    alone, after = copy.deepcopy(model), copy.deepcopy(model)
    expected = calibrate_(alone, plan, task)
    assert calibrate_(after, plan, task, recording=found.recording) == expected
    for a, b in zip(alone.state_dict().values(), after.state_dict().values()):
        assert torch.equal(a, b)


def test_channels_that_a_profile_has_chosen_are_not_sought_again(model, monkeypatch):
    task = _task()
    found = find_links(model, task)
    profile = profile_layers(model, task, exclude=["8"], every=3, links=found[0])
    plan = {"0": LayerPlan((4,), "whole", out_channels=9), "2": LayerPlan(out_channels=10)}
    plan, links = with_readers(plan, model, task, found)
    alone, after = copy.deepcopy(model), copy.deepcopy(model)
    expected = calibrate_(alone, plan, task, links=links)
    known = {name: width.link for name, width in profile.widths.items()}
    assert all(known[name].order for name in ("0", "2"))
    monkeypatch.setattr("sparsedet.compress.collector.greedy_order", None)
    assert calibrate_(after, plan, task, links=known) == expected
    for a, b in zip(alone.state_dict().values(), after.state_dict().values()):
        assert torch.equal(a, b)


def test_a_recording_of_too_few_samples_is_made_anew(model, monkeypatch):
    """A fully connected layer that only becomes narrower is fitted to more than a compact one."""
    monkeypatch.setattr("sparsedet.compress.fit.ROWS", 3)
    task = _task()
    links, _ = find_links(model, task)
    found = profile_layers(model, task, exclude=["8"], every=3, links=links, record=True)
    assert not found.recording.serves(["6"]) and found.recording.serves(["0", "2", "8"])
    plan = {"2": LayerPlan(out_channels=10)}  # which "6" reads
    alone, after = copy.deepcopy(model), copy.deepcopy(model)
    expected = calibrate_(alone, plan, task)
    assert expected.layers["6"].samples == BATCHES > sum(map(_samples, found.recording.calls["6"]))
    assert calibrate_(after, plan, task, recording=found.recording) == expected
    for a, b in zip(alone.state_dict().values(), after.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("memory", [1, 2**31])
def test_a_fit_to_what_was_recorded_is_the_same(model, memory, monkeypatch):
    monkeypatch.setattr("sparsedet.compress.collector.MEMORY", memory)
    task = _task()
    recording = profile_layers(model, task, exclude=["8"], every=3, record=True).recording
    plan = uniform_plan(model, "rows", 3, include=["0", "2", "6"])
    for kept in (recording.copy(), recording):  # a copy does not use up the other
        alone, after = copy.deepcopy(model), copy.deepcopy(model)
        expected = calibrate_(alone, plan, task)
        assert calibrate_(after, plan, task, recording=kept) == expected
        for a, b in zip(alone.state_dict().values(), after.state_dict().values()):
            assert torch.equal(a, b)
