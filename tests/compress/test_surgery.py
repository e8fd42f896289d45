"""Layers are replaced wherever the model refers to them, and what cannot be replaced is refused."""

import copy

import pytest
import torch
from torch import nn

from sparsedet.compress import LayerPlan, resolve_plan, sparsify_, uniform_plan
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, SparseFusionConv2d

ROWS = LayerPlan((4, 4), "rows")


class Pyramid(nn.Module):
    """Reaches its layers as detectron2's FPN does, and shares one of them."""

    def __init__(self):
        super().__init__()
        self.output2 = nn.Conv2d(8, 8, 3, padding=1)
        self.output3 = nn.Conv2d(8, 8, 3, padding=1)
        self.outputs = [self.output2, self.output3]
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.tower = nn.Sequential(self.shared, nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        return sum(self.tower(self.shared(conv(x))) for conv in self.outputs)


def test_plain_lists_follow():
    model = sparsify_(Pyramid(), {"output2": ROWS})
    assert model.outputs[0] is model.output2 and isinstance(model.output2, SparseFusionConv2d)
    assert model.outputs[1] is model.output3 and isinstance(model.output3, nn.Conv2d)


def test_a_shared_layer_is_replaced_under_all_its_names():
    model = sparsify_(Pyramid(), {"shared": ROWS})
    assert isinstance(model.shared, SparseFusionConv2d)
    assert model.tower[0] is model.shared


def test_full_rank_leaves_the_function():
    model = Pyramid().eval()
    dense = copy.deepcopy(model)
    sparsify_(model, {name: LayerPlan((8, 8), "rows") for name in ("output2", "shared")})
    x = torch.randn(1, 8, 9, 9)
    torch.testing.assert_close(model(x), dense(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_low_rank_projection_is_the_truncated_svd(shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(*shape)).double()
    u, s, v = torch.linalg.svd(model[0].weight, full_matrices=False)
    for rank in (1, 5, 12):
        compact = sparsify_(copy.deepcopy(model), {"0": LayerPlan((rank,))})[0]
        expected = u[:, :rank] * s[:rank] @ v[:rank]
        product = compact.expand.weight @ compact.reduce.weight
        torch.testing.assert_close(product, expected, rtol=1e-6, atol=1e-6)
        norms = compact.expand.weight.norm(dim=0), compact.reduce.weight.norm(dim=1)
        torch.testing.assert_close(*norms)


def test_names_match_layers_and_pass_over_the_rest():
    entry = {"pattern": "rows", "ranks": [4, 4]}
    assert resolve_plan(Pyramid(), {"output*": entry}) == {"output2": ROWS, "output3": ROWS}
    names = {"output2", "output3", "shared", "tower.2", "fc"}
    assert set(uniform_plan(Pyramid(), "rows", 4)) == names
    norm = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    assert resolve_plan(norm, {"*": entry}) == {"0": ROWS}


@pytest.mark.parametrize("name", ["output2", "output*"])
def test_what_is_compressed_already_is_refused(name):
    model = sparsify_(Pyramid(), {"output2": ROWS, "fc": LayerPlan((2,))})
    before = dict(model.named_modules())
    with pytest.raises(InputError, match="output2 is compressed already"):
        resolve_plan(model, {name: {"pattern": "rows", "ranks": [4, 4]}})
    with pytest.raises(InputError, match="'output2', which is compressed already"):
        sparsify_(model, {"output3": ROWS, "output2": ROWS})
    assert dict(model.named_modules()) == before
    assert isinstance(model.fc, LowRankLinear)
    assert set(uniform_plan(model, "rows", 4)) == {"output3", "shared", "tower.2"}


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"outputs2": {"rank": 4}}, "has no such layer; did you mean output2"),
        ({"tower.1": {"rank": 4}}, "tower.1 is a BatchNorm2d that cannot be replaced"),
        ({"output2": {"rank": 4}}, "keys must be {pattern, ranks} or {pattern, ratio}"),
        ({"output2": {"pattern": "rows", "ranks": [4]}}, "rows takes 2 ranks, not 1"),
        ({"output2": {"pattern": "rows", "ranks": [4, 0]}}, "must be positive multiples of 1"),
        ({"output2": {"pattern": "rows", "ratio": 0}}, "ratio must be a positive number"),
        ({"output2": {"pattern": "row", "ratio": 2}}, "unknown pattern 'row'; one of rows"),
        ({"fc": {"rank": 5}}, "rank must be 1 to 4, not 5"),
        ({"fc": 4}, "must be a mapping, not 4"),
    ],
)
def test_entries_that_do_not_fit(entries, message):
    with pytest.raises(InputError, match=message):
        resolve_plan(Pyramid(), entries)


@pytest.mark.parametrize(
    "name, message",
    [("conv", "not a layer"), ("", "not a layer"), ("tower.1", "a BatchNorm2d that cannot")],
)
def test_plans_that_do_not_fit(name, message):
    model = Pyramid()
    with pytest.raises(InputError, match=message):
        sparsify_(model, {"output2": ROWS, name: ROWS})
    assert isinstance(model.output2, nn.Conv2d)
