"""The search for the smallest model within a drop, with a score that needs no data set."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from sparsedet import max_drop
from sparsedet.compress import Task
from sparsedet.errors import InputError
from sparsedet.max_drop import Search, find_metric, search_smallest

SETTINGS = {"max_drop": 5.0, "metric": "likeness"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(32, 8, 3, padding=1)).eval()
    weight = torch.randn(32, 4) @ torch.randn(4, 32 * 9) + 0.3 * torch.randn(32, 32 * 9)
    with torch.no_grad():
        model[2].weight.copy_(weight.view(32, 32, 3, 3) / 20)  # nearly of rank 4
    return model


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(1)
    return Task(list(torch.randn(6, 1, 3, 24, 24)))


@pytest.fixture
def likeness(model):
    """100 less the error of a model's outputs in percent; it counts its calls."""
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(x)

    def score(candidate):
        score.calls += 1
        with torch.no_grad():
            error = (candidate(x) - expected).square().mean() / expected.var()
        return 100 * (1 - float(error))

    score.calls = 0
    return score


def test_the_largest_factor_that_was_within_is_kept(model, task, likeness, tmp_path):
    before = copy.deepcopy(model.state_dict())
    search = Search(str(tmp_path), SETTINGS)
    step = search_smallest(model, task, "params", likeness, search)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert likeness.calls == 1 + max_drop.STEPS == 1 + len(search.steps)
    assert step.factor == max(s.factor for s in search.steps if s.score >= 95)
    assert all(s.score < 95 for s in search.steps if s.factor > step.factor)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters / step.parameters >= 0.999 * step.factor > 1
    # What lies in best is that candidate.
    saved = torch.load(tmp_path / "best" / "model.pth", weights_only=True)
    saved = saved.get("model", saved)
    assert sum(v.numel() for v in saved.values()) == step.parameters
    assert "likeness" in (tmp_path / "search.md").read_text()
    page = (tmp_path / "best" / "report.html").read_text()
    assert all(f"<td>{step.score:.2f}</td>" in page for step in (search.dense, *search.steps))


class Stopped(Exception):
    pass


def test_a_stopped_search_goes_on_to_the_same(model, task, likeness, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = Search(str(tmp_path / "whole"), SETTINGS)
    expected = search_smallest(model, task, "params", likeness, whole)

    def stopping(candidate):
        if likeness.calls == 4 + 1 + max_drop.STEPS:
            raise Stopped
        return likeness(candidate)

    (tmp_path / "parts").mkdir()
    first = Search(str(tmp_path / "parts"), SETTINGS)
    with pytest.raises(Stopped):
        search_smallest(model, task, "params", stopping, first)
    second = Search(str(tmp_path / "parts"), SETTINGS)
    assert second.steps == first.steps and len(second.steps) == 3
    likeness.calls = 0
    found = search_smallest(model, task, "params", likeness, second)
    assert likeness.calls == max_drop.STEPS - 3
    assert (found.factor, found.score) == (expected.factor, expected.score)


def test_a_drop_that_cannot_be_met(model, task, tmp_path):
    search = Search(str(tmp_path), SETTINGS)
    scores = iter([100.0, *[10.0] * max_drop.STEPS])
    with pytest.raises(
        InputError, match=r"a drop of 5 cannot be met: at 1\.\d+x likeness is 90.00"
    ):
        search_smallest(model, task, "params", lambda _: next(scores), search)


def test_folders_of_something_else(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="exists already"):
        Search(str(tmp_path), SETTINGS)
    record = tmp_path / "search.json"
    for text in ("", "[]", "{}", '{"settings": {}, "steps": []}', '{"settings": {}, "steps": [1]}'):
        record.write_text(text)
        with pytest.raises(InputError, match="not the record of a search"):
            Search(str(tmp_path), SETTINGS)
    step = {"factor": 1, "parameters": 1, "multiply_adds": 1, "milliseconds": 1, "score": 1}
    record.write_text(json.dumps({"settings": {**SETTINGS, "max_drop": 1}, "steps": [step]}))
    with pytest.raises(InputError, match="a search with another max_drop"):
        Search(str(tmp_path), SETTINGS)


RESULTS = {
    "bbox": {"AP": 40.0, "AP50": 60.0, "AP-cat": 3.0},
    "segm": {"AP": 30.0, "APl": float("nan")},
}


def test_metrics_by_name():
    assert find_metric(RESULTS, "AP") == 40
    assert find_metric(RESULTS, "segm/AP") == 30
    assert find_metric(RESULTS, "AP-cat") == 3
    with pytest.raises(
        InputError, match="--metric PQ: this evaluation gives bbox/AP, bbox/AP50, se"
    ):
        find_metric(RESULTS, "PQ")
    with pytest.raises(InputError, match="--metric APl: it is nan"):
        find_metric(RESULTS, "APl")
