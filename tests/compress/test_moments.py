"""Patches are what a layer sees, and sums over a stream are those over all of it."""

import random

import pytest
import torch
from torch import nn

from sparsedet.compress.moments import CHUNK, Moments
from sparsedet.compress.patches import count_patches, kernel_columns, take_patches, weight_matrix
from sparsedet.kernels import sparse_kernels


def test_weight_times_patch_is_the_output_over_a_random_sweep():
    torch.manual_seed(0)
    draw = random.Random(0).randint
    for _ in range(40):
        conv = nn.Conv2d(
            draw(1, 3),
            draw(1, 4),
            (draw(1, 4), draw(1, 4)),
            stride=(draw(1, 3), draw(1, 3)),
            padding=(draw(0, 3), draw(0, 3)),
            dilation=(draw(1, 2), draw(1, 2)),
        )
        x = torch.randn(draw(1, 3), conv.in_channels, draw(8, 12), draw(8, 12))
        expected = conv(x).movedim(1, -1).reshape(-1, conv.out_channels)
        assert count_patches(conv, x) == len(expected)
        positions = torch.randperm(len(expected))[:7]
        outputs = take_patches(conv, x, positions) @ weight_matrix(conv.weight).T + conv.bias
        torch.testing.assert_close(outputs, expected[positions], rtol=1e-4, atol=1e-5)


def test_a_single_image_without_batch_dimension():
    conv, x = nn.Conv2d(2, 3, 3, padding=1), torch.randn(2, 5, 6)
    assert count_patches(conv, x) == 30
    outputs = take_patches(conv, x, torch.arange(30)) @ weight_matrix(conv.weight).T + conv.bias
    torch.testing.assert_close(outputs, conv(x).flatten(1).T)


def test_rows_of_a_fully_connected_layer():
    linear, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    assert count_patches(linear, x) == 10
    rows = take_patches(linear, x, torch.tensor([0, 9]))
    outputs = rows @ weight_matrix(linear.weight).T + linear.bias
    torch.testing.assert_close(outputs, linear(x).flatten(0, 1)[[0, 9]])


@pytest.mark.parametrize("pattern", ["checkerboard", "cross"])
def test_columns_of_a_sparse_kernel(pattern):
    conv = nn.Conv2d(2, 3, 3)
    for kernel in sparse_kernels(pattern, (3, 3)):
        block = weight_matrix(conv.weight)[:, kernel_columns(kernel, conv)]
        taps = [conv.weight[:, :, i, j] for i, j in kernel.taps]
        assert torch.equal(block, torch.cat(taps, dim=1))


@pytest.mark.parametrize("centered", [True, False])
def test_a_stream_sums_to_the_whole(centered, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("sparsedet.compress.moments.STRIP", 4)
    # A large mean, which float32 sums of squares would not survive.
    x = torch.randn(2 * CHUNK + 1000, 6) @ torch.randn(6, 6) + (1000 if centered else 1)
    y = torch.randn(len(x), 3) - 5
    moments, first = Moments(centered), 0
    for size in (0, 1, 7, 3000, 2000, 5000, len(x)):
        moments.add(x[first : first + size], y[first : first + size])
        first += size
    found = moments.statistics()

    x, y = x.double(), y.double()
    assert found.count == len(x)
    torch.testing.assert_close(found.x, x.mean(0))
    torch.testing.assert_close(found.y, y.mean(0))
    if centered:
        x, y = x - x.mean(0), y - y.mean(0)
    torch.testing.assert_close(found.xx, x.T @ x / len(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.yx, y.T @ x / len(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.yy, y.square().sum() / len(x), rtol=1e-5, atol=1e-5)


def test_error_is_that_of_the_samples_whatever_the_prior():
    torch.manual_seed(0)
    x, y = torch.randn(500, 4), torch.randn(500, 3) + 2
    moments = Moments()
    moments.add(x, y)
    statistics = moments.statistics()
    weight, bias = torch.randn(3, 4).double(), torch.randn(3).double()
    residual = x.double() @ weight.T + bias - y
    variance = (y - y.mean(0)).square().sum(1).mean()
    expected = residual.square().sum(1).mean() / variance
    for _ in range(2):
        offset = weight @ statistics.x + bias - statistics.y
        assert statistics.error(weight, offset) == pytest.approx(expected.item(), rel=1e-5)
        statistics.regularize_(torch.randn(3, 4).double())


def test_nothing_to_sum_is_an_error():
    with pytest.raises(ValueError, match="no patches"):
        Moments().statistics()
