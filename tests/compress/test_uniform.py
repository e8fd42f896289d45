"""One factor for every layer."""

import pytest
import torch
from torch import nn

from sparsedet.compress import even_plan, sparsify_
from sparsedet.compress.plan import compact_weights
from sparsedet.errors import InputError


def network():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 64, 3),
        nn.Conv2d(64, 64, (1, 7)),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3, groups=64),
        nn.Conv2d(64, 64, 3, groups=4),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, 200),
        nn.Linear(200, 10),
    )


@pytest.mark.parametrize("pattern", ["rows", "checkerboard", "quad", "cross"])
@pytest.mark.parametrize("factor", [2, 3.5])
def test_every_layer_shrinks_by_the_factor(pattern, factor):
    model = network()
    plan = even_plan(model, factor, pattern, exclude=["8"])
    assert list(plan) == ["1", "2", "3", "5", "7"]  # not the first, nor the depthwise one
    for name, entry in plan.items():
        layer = model.get_submodule(name)
        rank = entry.ranks[0] // getattr(layer, "groups", 1)
        size = compact_weights(layer, entry)
        # As large as the factor allows: one rank more would be too much.
        assert size * factor <= layer.weight.numel() < factor * size * (rank + 1) / rank
    assert plan["3"].pattern == "whole" and plan["7"].pattern is None
    assert sparsify_(model, plan, project=False)(torch.rand(1, 3, 13, 19)).shape


@pytest.mark.parametrize("factor", [1, 0, -2, float("inf"), float("nan"), "2"])
def test_a_factor_must_shrink(factor):
    with pytest.raises(InputError, match="must be a factor above 1"):
        even_plan(network(), factor)


def test_what_cannot_be_planned():
    with pytest.raises(InputError, match="there is no pattern 'stripes'"):
        even_plan(network(), 2, "stripes")
    with pytest.raises(InputError, match="no layer to replace"):
        even_plan(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)), 2)
