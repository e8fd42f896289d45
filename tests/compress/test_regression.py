"""Closed forms against least squares and singular values of explicit data."""

import math

import pytest
import torch

from sparsedet.compress.curves import spend
from sparsedet.compress.low_rank import LowRankRegression
from sparsedet.compress.moments import RIDGE
from sparsedet.compress.regression import Regression
from sparsedet.compress.spectrum import principal_directions

OUTPUTS, SIZE, COUNT = 6, 12, 400
HALVES = [torch.arange(0, SIZE, 2), torch.arange(1, SIZE, 2)]
OVERLAP = [torch.arange(0, 7), torch.arange(5, 10)]


@pytest.fixture
def data():
    """Correlated inputs, and outputs of a dense layer on slightly different ones."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    x = randn(COUNT, SIZE) @ randn(SIZE, SIZE)
    weight = randn(OUTPUTS, SIZE)
    return x, (x + 0.3 * randn(COUNT, SIZE)) @ weight.T, weight


def _regression(x, y, weight, blocks):
    return Regression(x.T @ x, y.T @ x, y.square().sum(), weight, blocks)


def _fitted(regression, blocks):
    weight = torch.zeros(OUTPUTS, SIZE, dtype=torch.double)
    for block, (fusion, sparse) in zip(blocks, regression.weights()):
        weight[:, block] += fusion @ sparse
    return weight


def _error(weight, x, y):
    return ((x @ weight.T - y).square().sum() / y.square().sum()).item()


def _reduced_rank(x, y, rank):
    """Textbook: least squares, then the principal directions of the fitted values."""
    weight = torch.linalg.lstsq(x, y).solution
    _, _, v = torch.linalg.svd(x @ weight, full_matrices=False)
    return (weight @ v[:rank].T @ v[:rank]).T


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 0])
def test_inputs_that_are_nearly_all_the_same(noise):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, generator=generator) + noise * torch.randn(400, 64, generator=generator)
    weight = torch.randn(32, 64, generator=generator)
    y = x @ weight.T
    blocks = [torch.arange(0, 64, 2), torch.arange(1, 64, 2)]
    regression = _regression(x, y, weight, blocks)  # in float32, in which x.T @ x is indefinite
    regression.cut([16, 16])
    regression.improve(2)
    found = sum(x[:, b] @ (f @ s).T for b, (f, s) in zip(blocks, regression.weights()))
    assert (found - y).norm() < 0.01 * y.norm()


@pytest.mark.parametrize("rank", range(1, OUTPUTS + 1))
def test_one_kernel_is_reduced_rank_regression(data, rank):
    x, y, weight = data
    blocks = [torch.arange(SIZE)]
    regression = _regression(x, y, weight, blocks)
    regression.cut([rank])
    expected = _reduced_rank(x, y, rank)
    torch.testing.assert_close(_fitted(regression, blocks), expected, rtol=1e-8, atol=1e-8)
    assert regression.error == pytest.approx(_error(expected, x, y), rel=1e-8)


@pytest.mark.parametrize("blocks", [HALVES, OVERLAP])
def test_the_reported_error_is_that_of_the_weights(data, blocks):
    x, y, weight = data
    regression = _regression(x, y, weight, blocks)
    regression.cut([2, 3])
    regression.improve(3)
    assert regression.ranks == (2, 3)
    assert regression.error == pytest.approx(_error(_fitted(regression, blocks), x, y), rel=1e-8)


def test_exact_at_full_rank_where_the_dense_layer_is(data):
    x, _, weight = data
    regression = _regression(x, x @ weight.T, weight, HALVES)
    regression.cut([OUTPUTS, OUTPUTS])
    torch.testing.assert_close(_fitted(regression, HALVES), weight, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("blocks", [HALVES, OVERLAP])
def test_full_rank_converges_to_least_squares(data, blocks):
    x, y, weight = data
    regression = _regression(x, y, weight, blocks)
    regression.cut([OUTPUTS, OUTPUTS])
    regression.improve(300)
    used = torch.cat(blocks).unique()
    best = torch.zeros(OUTPUTS, SIZE, dtype=torch.double)
    best[:, used] = torch.linalg.lstsq(x[:, used], y).solution.T
    assert regression.error == pytest.approx(_error(best, x, y), rel=1e-4)


@pytest.mark.parametrize("blocks", [HALVES, OVERLAP])
def test_turns_never_lose(data, blocks):
    regression = _regression(*data, blocks)
    regression.cut([2, 2])
    errors = [regression.error]
    for _ in range(20):
        regression.improve(1)
        errors.append(regression.error)
    assert all(later <= earlier + 1e-12 for earlier, later in zip(errors, errors[1:]))
    assert errors[-1] < errors[0]


def test_more_rank_never_loses(data):
    errors = []
    for rank in range(1, OUTPUTS + 1):
        regression = _regression(*data, HALVES)
        regression.cut([rank, rank])
        regression.improve(50)
        errors.append(regression.error)
    assert errors == sorted(errors, reverse=True)


def test_better_than_the_weights_alone(data):
    x, y, weight = data
    regression = _regression(x, y, weight, HALVES)
    regression.cut([2, 2])
    regression.improve(12)
    alone = torch.zeros_like(weight)
    for block in HALVES:
        u, s, v = torch.linalg.svd(weight[:, block], full_matrices=False)
        alone[:, block] = u[:, :2] * s[:2] @ v[:2]
    assert regression.error < 0.5 * _error(alone, x, y)


def test_a_rank_above_that_of_a_kernel(data):
    x, y, weight = data
    regression = _regression(x, y, weight, [torch.arange(3), torch.arange(3, SIZE)])
    regression.cut([OUTPUTS, OUTPUTS])
    regression.improve(300)
    best = _error(torch.linalg.lstsq(x, y).solution.T, x, y)
    assert regression.error == pytest.approx(best, rel=1e-4)


def test_ranks_are_spent_where_they_explain_most_per_price():
    spectra = [torch.tensor([9.0, 5.0, 1.0]), torch.tensor([8.0, 7.0, 6.0])]
    assert spend(spectra, [1, 1], 4) == [1, 3]
    assert spend(spectra, [1, 2], 5) == [2, 1]
    assert spend(spectra, [1, 1], 1) == [1, 1]
    assert spend(spectra, [1, 1], 100) == [3, 3]


@pytest.mark.parametrize("count", [40, 5])
@pytest.mark.parametrize("rank", [2, OUTPUTS])
def test_low_rank_is_ridge_regression_held_to_the_dense_weights(data, count, rank):
    x, y, weight = (t[:count] if len(t) == COUNT else t for t in data)
    x, y = x + 1, y - 2
    expand, reduce = LowRankRegression(x, y, weight).factors(rank)

    x, y = x - x.mean(0), y - y.mean(0)
    ridge = math.sqrt(RIDGE * x.square().sum().item() / len(x))
    white = ridge * torch.eye(SIZE, dtype=torch.double)
    expected = _reduced_rank(torch.cat([x, white]), torch.cat([y, white @ weight.T]), rank)
    torch.testing.assert_close(expand @ reduce, expected, rtol=1e-6, atol=1e-6)


def test_low_rank_without_any_variation_keeps_the_weights(data):
    _, _, weight = data
    x, y = torch.ones(7, SIZE), torch.ones(7, OUTPUTS)
    expand, reduce = LowRankRegression(x, y, weight).factors(OUTPUTS)
    torch.testing.assert_close(expand @ reduce, weight)


def test_principal_directions_of_a_large_covariance():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(1100, 1100, dtype=torch.double)).Q
    values = 0.9 ** torch.arange(1100, dtype=torch.double)
    covariance = basis * values @ basis.T
    found, directions = principal_directions(covariance, 20)
    torch.testing.assert_close(found, values[:20], rtol=1e-5, atol=0)
    expected = basis[:, :20] @ basis[:, :20].T
    torch.testing.assert_close(directions @ directions.T, expected, rtol=0, atol=1e-5)
    whole, _ = principal_directions(covariance)
    torch.testing.assert_close(whole, values)
