"""Which channels of a layer's input to keep, and how well it does with them alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .moments import Statistics


class ChannelChoice:
    """Channels in the order in which a greedy search keeps them.

    Of all channels that are not kept yet, the one is next with which the layer, its weights then
    fitted anew, explains most of its dense outputs: forward selection of whole blocks of columns, a
    Cholesky factorization with pivots. It takes about D^3 / 2 + C D^2 multiply-adds for a patch of
    D numbers and C outputs.

    Args:
        statistics: of the layer's patches and outputs, regularised.
        blocks: (channels, numbers) the columns of a patch that belong to each channel.
        most: how many channels to order; the rest is left out.

    Attributes:
        order: of the channels, the first to keep first.
    """

    def __init__(self, statistics: Statistics, blocks: torch.Tensor, most: int):
        self.statistics, self.blocks = statistics, blocks
        columns = blocks.flatten()
        size = blocks.shape[1]
        # Float32 is enough to choose by; the weights are solved for in float64.
        xx = statistics.xx.float()[columns][:, columns]
        left = statistics.yx.float()[:, columns].unflatten(1, blocks.shape)
        inner = xx.unflatten(0, blocks.shape).unflatten(2, blocks.shape)
        inner = inner.diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
        floor = torch.eye(size).to(xx) * xx.diagonal().mean() * torch.finfo(xx.dtype).eps * 10
        factor = xx.new_zeros(len(columns), most * size)
        self.order: list[int] = []
        for step in range(most):
            roots = torch.linalg.cholesky_ex(inner + floor).L
            solved = torch.linalg.solve_triangular(roots, left.permute(1, 2, 0), upper=False)
            gains = solved.square().sum((1, 2)).nan_to_num(-1.0)
            gains[self.order] = -1.0
            best = int(gains.argmax())
            self.order.append(best)
            rows = slice(best * size, (best + 1) * size)
            done = factor[:, : step * size]
            column = xx[:, rows] - done @ done[rows].T
            column = torch.linalg.solve_triangular(roots[best], column.T, upper=False).T
            factor[:, step * size : (step + 1) * size] = column
            parts = column.unflatten(0, blocks.shape)
            left -= torch.einsum("ko,nbk->onb", solved[best], parts)
            inner -= parts @ parts.transpose(1, 2)

    def weights(self, count: int) -> torch.Tensor:
        """(C, D): the best weights for the first ``count`` channels, zero for all others."""
        columns = self.blocks[sorted(self.order[:count])].flatten()
        xx = self.statistics.xx[columns][:, columns]
        root = torch.linalg.cholesky(xx)
        weight = torch.zeros_like(self.statistics.yx)
        weight[:, columns] = torch.cholesky_solve(self.statistics.yx[:, columns].T, root).T
        return weight

    def errors(self, counts: Sequence[int]) -> list[float]:
        """Mean square error with so many channels, as a share of the variance of the outputs."""
        return [self.statistics.error(self.weights(count)) for count in counts]


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
