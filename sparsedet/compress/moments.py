"""Means and covariances of patches and outputs, summed over a stream of them."""

from __future__ import annotations

import torch

CHUNK = 2048
"""Patches that are held until they are summed."""

STRIP = 1024
"""Rows of the covariance that are summed together, from the diagonal on: it is symmetric."""

RIDGE = 0.2
"""How much the dense weights count beside the data; see :meth:`Statistics.regularize_`."""


class Moments:
    """Sums over a stream of patches x (D numbers each) and outputs y (C numbers each).

    Products of a chunk are taken in float32 and summed in float64, about the mean of the first
    chunk so that a large mean costs no precision. The sums take 8 D (D + C) bytes: 190 MB for a
    3x3 window of 512 channels, and a chunk of patches 38 MB.

    Args:
        centered: covariances, about the means; otherwise moments about zero, which is what a layer
            without bias has to fit.
    """

    def __init__(self, centered: bool = True):
        self.centered = centered
        self.count = 0
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Patches (P, D) and outputs (P, C) of the same positions, float32."""
        if len(x):
            self._held.append((x, y))
        if sum(len(x) for x, _ in self._held) >= CHUNK:
            self._sum()

    def _sum(self) -> None:
        x, y = (torch.cat(parts) for parts in zip(*self._held))
        self._held.clear()
        if not self.count:
            self._start(x, y)
        x, y = x.sub_(self._about_x), y.sub_(self._about_y)
        self.count += len(x)
        for first in range(0, x.shape[1], STRIP):
            rows = slice(first, first + STRIP)
            self._xx[rows, first:] += x[:, rows].T @ x[:, first:]
        self._yx += y.T @ x
        self._yy += y.square().sum()
        self._x += x.sum(0)
        self._y += y.sum(0)

    def _start(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self._about_x, self._about_y = x.mean(0), y.mean(0)
        if not self.centered:
            self._about_x, self._about_y = x.new_zeros(x.shape[1]), y.new_zeros(y.shape[1])
        sums = {"dtype": torch.double, "device": x.device}
        self._xx = torch.zeros(x.shape[1], x.shape[1], **sums)
        self._yx = torch.zeros(y.shape[1], x.shape[1], **sums)
        self._x, self._y = torch.zeros(x.shape[1], **sums), torch.zeros(y.shape[1], **sums)
        self._yy = torch.zeros((), **sums)

    def statistics(self) -> Statistics:
        """What was summed; nothing can be added afterwards, for the sums are reused in place.

        Raises:
            ValueError: nothing was added.
        """
        if self._held:
            self._sum()
        if not self.count:
            raise ValueError("no patches were added")
        for first in range(0, len(self._xx), STRIP):
            rows, rest = slice(first, first + STRIP), slice(first + STRIP, None)
            self._xx[rest, rows] = self._xx[rows, rest].T
        x, y = self._x / self.count, self._y / self.count
        xx, yx = self._xx.div_(self.count), self._yx.div_(self.count)
        yy = self._yy / self.count
        variance = yy - y.square().sum()
        if self.centered:
            xx.addr_(x, x, alpha=-1)
            yx.addr_(y, x, alpha=-1)
            yy = variance
        x, y = self._about_x + x, self._about_y + y
        return Statistics(self.count, x, y, xx, yx, yy, variance)


class Statistics:
    """What is known of x and y.

    Attributes:
        count: number of patches.
        x, y: their means.
        xx, yx, yy: their moments, (D, D), (C, D), and summed over the outputs.
        variance: of the outputs, summed over them.
    """

    def __init__(self, count, x, y, xx, yx, yy, variance):
        self.count = count
        self.x, self.y, self.xx, self.yx, self.yy = x, y, xx, yx, yy
        self.variance = variance.clone()
        self.ridge = 0.0
        self.prior = torch.zeros_like(yx)

    def regularize_(self, weight: torch.Tensor) -> None:
        """Add the dense layer's own knowledge: white patches, for which ``weight`` is right.

        They have the mean variance of the real ones and weigh RIDGE * D / count beside them. Where
        patches are few or never vary in some direction, a fit then falls back to the dense weights
        instead of to zero; where there are many, it changes little.
        """
        size = len(self.xx)
        scale = self.xx.diagonal().mean().item() or 1.0
        self.ridge = scale * max(RIDGE * size / self.count, 1e-6)
        self.prior = weight
        self.xx.diagonal().add_(self.ridge)
        self.yx.add_(weight, alpha=self.ridge)
        self.yy += self.ridge * weight.square().sum()

    def error(self, weight: torch.Tensor, offset: torch.Tensor | None = None) -> float:
        """Mean square error of a linear map (C, D) on the data, as a share of the variance of y.

        Args:
            offset: (C,) what the map and its bias add to the mean of y; none by default.
        """
        error = self.yy - 2 * (weight * self.yx).sum() + ((weight @ self.xx) * weight).sum()
        error -= self.ridge * (weight - self.prior).square().sum()
        if offset is not None:
            error += offset.square().sum()
        return (error / self.variance.clamp(min=1e-300)).clamp(min=0).item()
