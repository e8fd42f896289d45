"""The choice of channels, against least squares on the same samples and against every choice."""

import itertools

import pytest
import torch

from sparsedet.compress.channels import ChannelChoice, channel_blocks, greedy_order
from sparsedet.compress.moments import Moments

TAPS, CHANNELS, OUTPUTS = 2, 6, 4


@pytest.fixture
def samples():
    """Patches whose channels are mixtures of a few, and what a layer makes of them."""
    torch.manual_seed(0)
    mixing = torch.randn(3, CHANNELS)
    patches = (torch.randn(500, TAPS, 3) @ mixing).flatten(1) + 1
    patches += 0.3 * torch.randn(patches.shape)
    return patches, patches @ torch.randn(OUTPUTS, TAPS * CHANNELS).T


@pytest.fixture
def choice(samples):
    moments = Moments()
    moments.add(*(x.clone() for x in samples))
    return _chosen(moments.statistics(), channel_blocks(TAPS, CHANNELS, CHANNELS), CHANNELS)


def _chosen(statistics, blocks, most):
    return ChannelChoice(statistics, blocks, greedy_order(statistics, blocks, most))


def _error(samples, channels):
    """Of the best affine map from some channels, by another solver."""
    x, y = (part.double() - part.double().mean(0) for part in samples)
    x = x.unflatten(1, (TAPS, CHANNELS))[:, :, list(channels)].flatten(1)
    solution = torch.linalg.lstsq(x, y).solution
    return ((y - x @ solution).square().sum() / y.square().sum()).item()


def test_the_errors_are_those_of_least_squares(samples, choice):
    counts = range(1, CHANNELS + 1)
    expected = [_error(samples, choice.order[:count]) for count in counts]
    assert choice.errors(counts) == pytest.approx(expected, abs=1e-6)


def test_each_channel_is_the_best_beside_those_before(samples, choice):
    for count in range(CHANNELS):
        before = choice.order[:count]
        rest = [c for c in range(CHANNELS) if c not in before]
        assert choice.order[count] == min(rest, key=lambda c: _error(samples, [*before, c]))


def test_not_far_from_the_best_of_all_choices(samples, choice):
    for count in range(1, CHANNELS):
        choices = itertools.combinations(range(CHANNELS), count)
        best = min(_error(samples, channels) for channels in choices)
        assert _error(samples, choice.order[:count]) < 2 * best


def test_the_weights_use_no_other_channels(choice):
    weight = choice.weights(2).unflatten(1, (TAPS, CHANNELS))
    assert not weight[:, :, choice.order[2:]].any()
    assert weight[:, :, choice.order[:2]].all()


def test_the_columns_of_a_channel():
    x = torch.arange(5 * 2 * 3).reshape(1, 5, 2, 3)  # 5 channels of 6 positions, flattened
    assert channel_blocks(1, 5, 30)[3].tolist() == x.flatten(1)[0][x[:, 3].flatten()].tolist()
    window = x.permute(0, 2, 3, 1).flatten()  # 6 taps of 5 channels
    assert channel_blocks(6, 5, 5)[3].tolist() == [
        window.tolist().index(n) for n in x[0, 3].flatten()
    ]


def test_channels_that_are_equal_or_silent():
    torch.manual_seed(0)
    x = torch.randn(300, 2).repeat(1, 3)
    x[:, 5] = 0
    moments = Moments()
    moments.add(x.clone(), x @ torch.randn(3, 6).T)
    choice = _chosen(moments.statistics(), channel_blocks(1, 6, 6), 2)
    assert {c % 2 for c in choice.order} == {0, 1} and 5 not in choice.order
    assert choice.errors([2]) == pytest.approx([0], abs=1e-6)


def test_many_outputs_are_looked_at_in_combinations(samples, monkeypatch):
    x, _ = samples
    y = x @ torch.randn(4 * OUTPUTS, TAPS * CHANNELS, generator=torch.Generator().manual_seed(1)).T
    errors = {}
    for most in (OUTPUTS, 4 * OUTPUTS):
        monkeypatch.setattr("sparsedet.compress.channels.OUTPUTS", most)
        moments = Moments()
        moments.add(x.clone(), y.clone())
        known = moments.statistics()
        choice = _chosen(known, channel_blocks(TAPS, CHANNELS, CHANNELS), 3)
        errors[most] = _error((x, y), choice.order)
    assert errors[OUTPUTS] < 1.2 * errors[4 * OUTPUTS]
