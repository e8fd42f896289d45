"""Patterns are geometry: which taps, in which kernel, and whether they partition the window."""

import pytest

from sparsedet.kernels import PATTERNS, fusion_weights, low_rank_weights, sparse_kernels

WINDOWS = [(h, w) for h in range(2, 8) for w in range(2, 8)]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w[0]}x{w[1]}")
def test_partition_is_what_the_pattern_declares(name, window):
    taps = [tap for kernel in sparse_kernels(name, window) for tap in kernel.taps]
    every = [(i, j) for i in range(window[0]) for j in range(window[1])]
    assert set(taps) <= set(every)
    assert (sorted(taps) == every) == PATTERNS[name].partition


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("window", WINDOWS, ids=lambda w: f"{w[0]}x{w[1]}")
def test_phases_are_disjoint_and_evenly_spaced(name, window):
    for kernel in sparse_kernels(name, window):
        assert len(set(kernel.taps)) == len(kernel.taps)
        for phase in kernel.phases:
            assert len(phase.taps) == len(phase.rows) * len(phase.columns) > 0


@pytest.mark.parametrize(
    "name, taps",
    [
        ("rows", [{(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)}, {(1, 0), (1, 1), (1, 2)}]),
        ("columns", [{(0, 0), (1, 0), (2, 0), (0, 2), (1, 2), (2, 2)}, {(0, 1), (1, 1), (2, 1)}]),
        (
            "checkerboard",
            [{(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)}, {(0, 1), (1, 0), (1, 2), (2, 1)}],
        ),
        (
            "quad",
            [{(0, 0), (0, 2), (2, 0), (2, 2)}, {(0, 1), (2, 1)}, {(1, 0), (1, 2)}, {(1, 1)}],
        ),
        ("cross", [{(1, 0), (1, 1), (1, 2)}, {(0, 1), (1, 1), (2, 1)}]),
        ("whole", [{(i, j) for i in range(3) for j in range(3)}]),
    ],
)
def test_the_taps_of_a_3x3_window(name, taps):
    assert [set(kernel.taps) for kernel in sparse_kernels(name, (3, 3))] == taps


@pytest.mark.parametrize("name, phases", [("rows", [1, 1]), ("checkerboard", [2, 2])])
def test_the_number_of_native_convolutions(name, phases):
    assert [len(kernel.phases) for kernel in sparse_kernels(name, (3, 3))] == phases


def test_a_window_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="'rows' does not split a 1x3 window"):
        sparse_kernels("rows", (1, 3))
    with pytest.raises(ValueError, match="does not split a 1x1 window"):
        sparse_kernels("quad", (1, 1))


def test_a_1x1_window_has_the_whole_pattern_only():
    (kernel,) = sparse_kernels("whole", (1, 1))
    assert kernel.taps == ((0, 0),)


def test_an_unknown_pattern_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown pattern 'hexagon'; one of rows, columns"):
        sparse_kernels("hexagon", (3, 3))


def test_cost_of_the_worked_example():
    # Two kernels of rank C / 4: (11 / 9) / 4 of the dense weights.
    channels = 512
    kernels = sparse_kernels("checkerboard", (3, 3))
    weights = fusion_weights(channels, channels, kernels, [channels // 4] * 2)
    assert weights * 9 * 4 == 9 * channels * channels * 11
    assert low_rank_weights(25088, 4096, 96) == 96 * (25088 + 4096)
