"""Spatially complementary sparse kernels of a k_h x k_w window.

A *phase* is a rectangular sub-grid of the window's taps: evenly spaced rows times evenly spaced
columns. It is therefore one dense, dilated convolution that every library runs natively. A *sparse
kernel* is a union of disjoint phases, and a *pattern* splits a window into sparse kernels. Patterns
are cosets of a sublattice of Z^2, so the same few lines serve every kernel size.

Hand-crafted, regular, complementary kernels are the idea of Chen et al., arXiv 1808.02167; the
particular patterns below are this project's reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Phase:
    """The taps ``(i, j)`` with ``i`` in ``rows`` and ``j`` in ``columns``."""

    rows: range
    columns: range

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        """The taps in row-major order, the order of the native convolution's weight."""
        return tuple(product(self.rows, self.columns))


@dataclass(frozen=True)
class SparseKernel:
    """A union of disjoint phases."""

    phases: tuple[Phase, ...]

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        """The taps, phase after phase."""
        return tuple(tap for phase in self.phases for tap in phase.taps)


@dataclass(frozen=True)
class Pattern:
    """How a window is split.

    ``split(k_h, k_w)`` gives, for each sparse kernel, a list of ``(rows, columns)`` ranges; empty
    ones are dropped. ``partition`` says whether every tap of the window lies in exactly one kernel.
    """

    split: Callable[[int, int], list[list[tuple[range, range]]]]
    partition: bool


def _every(k: int) -> range:
    return range(k)


def _even(k: int) -> range:
    return range(0, k, 2)


def _odd(k: int) -> range:
    return range(1, k, 2)


def _middle(k: int) -> range:
    return range((k - 1) // 2, (k - 1) // 2 + 1)


PATTERNS: dict[str, Pattern] = {
    "rows": Pattern(
        lambda h, w: [[(_even(h), _every(w))], [(_odd(h), _every(w))]],
        partition=True,
    ),
    "columns": Pattern(
        lambda h, w: [[(_every(h), _even(w))], [(_every(h), _odd(w))]],
        partition=True,
    ),
    "checkerboard": Pattern(
        lambda h, w: [
            [(_even(h), _even(w)), (_odd(h), _odd(w))],
            [(_even(h), _odd(w)), (_odd(h), _even(w))],
        ],
        partition=True,
    ),
    "quad": Pattern(
        lambda h, w: [[(rows(h), cols(w))] for rows in (_even, _odd) for cols in (_even, _odd)],
        partition=True,
    ),
    # Overlaps in the centre and misses the corners; it earns its place by speed.
    "cross": Pattern(
        lambda h, w: [[(_middle(h), _every(w))], [(_every(h), _middle(w))]],
        partition=False,
    ),
    # One kernel with every tap: plain low rank, which is all that a 1x1 window allows.
    "whole": Pattern(lambda h, w: [[(_every(h), _every(w))]], partition=True),
}


def sparse_kernels(pattern: str, kernel_size: tuple[int, int]) -> tuple[SparseKernel, ...]:
    """The sparse kernels into which ``pattern`` splits a window of ``kernel_size`` = (k_h, k_w).

    Raises:
        ValueError: unknown pattern, or a window that the pattern cannot split in two.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}; one of {', '.join(PATTERNS)}")
    kernels, split = [], PATTERNS[pattern].split(*kernel_size)
    for ranges in split:
        phases = tuple(Phase(rows, columns) for rows, columns in ranges if rows and columns)
        if phases:
            kernels.append(SparseKernel(phases))
    if len(kernels) < min(2, len(split)):
        k_h, k_w = kernel_size
        raise ValueError(f"pattern {pattern!r} does not split a {k_h}x{k_w} window")
    return tuple(kernels)
