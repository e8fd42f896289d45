"""Ranges inside compact layers are made alike, and nothing changes in what the layers give."""

import torch
from torch import nn

from sparsedet.exporting.equalize import BALANCE, equalize_
from sparsedet.layers import LowRankLinear, SparseFusionConv2d


def test_ranges_are_balanced_and_outputs_are_the_same():
    torch.manual_seed(0)
    convolution = SparseFusionConv2d(4, 6, 3, padding=1, pattern="checkerboard", ranks=(3, 5))
    linear = LowRankLinear(6 * 5 * 5, 7, rank=4)
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear).double()
    readers = [convolution.fusion, linear.expand]
    for layer, first in (convolution.sparse[1][0], 2), (linear.reduce, 1):
        layer.weight.data[first:] *= 100  # channels of other ranges
    images = [torch.randn(2, 4, 5, 5).double() for _ in range(3)]
    expected = [model(x) for x in images]
    equalize_(model, images, model)

    seen = {reader: [] for reader in readers}
    for reader in readers:
        reader.register_forward_pre_hook(lambda module, args: seen[module].append(args[0]))
    for x, y in zip(images, expected):
        torch.testing.assert_close(model(x), y)
    for reader in readers:
        most = sum(x.abs().transpose(0, 1).flatten(1).amax(1) for x in seen[reader])
        # Channel by channel |x'| is (|x| |w|)^(1 - a), and |w'| is (|x| |w|)^a.
        weights = reader.weight.flatten(1).abs().amax(0)
        constant = weights / most ** (BALANCE / (1 - BALANCE))
        torch.testing.assert_close(constant, constant[:1].expand_as(constant))


def test_what_is_never_used_stays_finite_and_groups_stay_as_they_are():
    torch.manual_seed(0)
    dead = SparseFusionConv2d(2, 4, 3, padding=1, pattern="rows", ranks=(2, 2))
    dead.sparse[0][0].weight.data[0] = 0
    dead.fusion.weight.data[:, 3] = 0
    grouped = SparseFusionConv2d(4, 4, 3, groups=2, pattern="rows", ranks=(2, 2))
    model = nn.Sequential(dead, grouped)
    before = [p.clone() for p in grouped.parameters()]
    x = torch.randn(1, 2, 6, 6)
    expected = model(x)
    equalize_(model, [x], model)
    torch.testing.assert_close(model(x), expected)
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(grouped.parameters(), before))


def test_inputs_are_read_only_where_there_is_something_to_scale():
    def inputs():
        raise AssertionError
        yield

    equalize_(nn.Conv2d(1, 1, 1), inputs(), print)
