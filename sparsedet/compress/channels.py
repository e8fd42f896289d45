"""Which channels of a layer's input to keep, and how well it does with them alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .moments import Statistics

OUTPUTS = 512
"""Of more outputs, so many random combinations: what a channel explains of all shows in these
(Johnson and Lindenstrauss), and the search is bound by the memory that they take."""


def greedy_order(statistics: Statistics, blocks: torch.Tensor, most: int) -> list[int]:
    """The channels in the order in which a greedy search keeps them, the first ``most`` of them.

    Of all channels that are not kept yet, the one is next with which the layer, its weights then
    fitted anew, explains most of its dense outputs: forward selection of whole blocks of columns, a
    Cholesky factorization with pivots. It takes about D^3 / 2 + C D^2 multiply-adds for a patch of
    D numbers and C outputs, OUTPUTS at most.

    Args:
        statistics: of the layer's patches and outputs, regularised.
        blocks: (channels, numbers) the columns of a patch that belong to each channel.
    """
    columns, size = blocks.flatten(), blocks.shape[1]
    # Float32 is enough to choose by. Rows are the numbers of a patch, channel by channel.
    xx = statistics.xx.float()[columns][:, columns]
    left = _combined(statistics.yx).float().T[columns]  # what is not explained yet
    inner = torch.stack([xx[i : i + size, i : i + size] for i in range(0, len(xx), size)])
    floor = torch.eye(size).to(xx) * xx.diagonal().mean() * torch.finfo(xx.dtype).eps * 10
    factor = xx.new_zeros(most * size, len(xx))
    order: list[int] = []
    for step in range(most):
        roots = torch.linalg.cholesky_ex(inner + floor).L
        parts = left.unflatten(0, blocks.shape)
        gains = (torch.cholesky_inverse(roots) * (parts @ parts.mT)).sum((1, 2))
        gains = gains.nan_to_num(-1.0)
        gains[order] = -1.0
        best = int(gains.argmax())
        order.append(best)
        rows = slice(best * size, (best + 1) * size)
        done = factor[: step * size]
        row = torch.addmm(xx[rows], done[:, rows].T, done, alpha=-1)
        row = torch.linalg.solve_triangular(roots[best], row, upper=False)
        explained = torch.linalg.solve_triangular(roots[best], parts[best], upper=False)
        factor[step * size : (step + 1) * size] = row
        left.addmm_(row.T, explained, alpha=-1)
        spread = row.T.unflatten(0, blocks.shape)
        inner -= spread @ spread.mT
    return order


class ChannelChoice:
    """What a layer does with some of the channels that it reads, and the best weights for them.

    Args:
        statistics: of the layer's patches and outputs, regularised.
        blocks: (channels, numbers) the columns of a patch that belong to each channel.
        order: of channels, the first to keep first.
    """

    def __init__(self, statistics: Statistics, blocks: torch.Tensor, order: Sequence[int]):
        self.statistics, self.blocks, self.order = statistics, blocks, list(order)

    def weights(self, count: int, dtype: torch.dtype = torch.double) -> torch.Tensor:
        """(C, D): the best weights for the first ``count`` channels, zero for all others."""
        columns = self.blocks[sorted(self.order[:count])].flatten()
        xx = self.statistics.xx[columns][:, columns].to(dtype)
        yx = self.statistics.yx.to(dtype)
        weight = torch.zeros_like(yx)
        solved = torch.cholesky_solve(yx[:, columns].T, torch.linalg.cholesky(xx))
        weight[:, columns] = solved.T
        return weight

    def errors(self, counts: Sequence[int]) -> list[float]:
        """Mean square error with so many channels, as a share of the variance of the outputs."""
        known = self.statistics
        errors = []
        for count in counts:
            weight = self.weights(count, torch.float)
            # As known.error(weight), of which it is the least.
            error = known.yy - (weight * known.yx).sum()
            error -= known.ridge * (weight - known.prior).square().sum()
            errors.append((error / known.variance.clamp(min=1e-300)).clamp(min=0).item())
        return errors


def _combined(outputs: torch.Tensor) -> torch.Tensor:
    """Rows (C, D), or OUTPUTS random combinations of them with the same expected squares."""
    if len(outputs) <= OUTPUTS:
        return outputs
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(OUTPUTS, len(outputs), generator=generator) / OUTPUTS**0.5
    return weights.to(outputs) @ outputs


def channel_blocks(taps: int, channels: int, inputs: int) -> torch.Tensor:
    """The columns of a reader's patch that belong to each channel of the layer that it reads.

    Args:
        taps: of the reader's window.
        channels: of the layer that it reads.
        inputs: channels of the reader; flattened, each channel becomes several.

    Returns:
        (channels, taps * inputs / channels)
    """
    each = inputs // channels
    number = torch.arange(channels)[:, None, None] * each + torch.arange(each)
    return (torch.arange(taps)[:, None] * inputs + number).flatten(1)
