"""The rules for boxes and sizes, which all formats share."""

import math

import pytest

from sparsedet.data.boxes import image_size, mended_box, usable_box

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ([1, 2, 3], "not four numbers"),
        ([1, 2, 3, 4, 5], "not four numbers"),
        (["1", "2", "30", "40"], "not four numbers"),
        ([1, 2, 30, "12.5"], "not four numbers"),
        ([True, 2, 30, 40], "not four numbers"),
        (None, "not four numbers"),
        ({"x": 1}, "not four numbers"),
        ([NAN, 2, 30, 40], "not finite"),
        ([1, 2, INF, 40], "not finite"),
        ([1, 2, 10**400, 40], "not finite"),
        ([30, 2, 1, 40], "inverted"),
        ([1, 40, 30, 2], "inverted"),
        ([1, 2, 1, 40], "empty"),
        ([1, 2, 30, 2], "empty"),
        ([-1.5, 2, 30, 40], "outside its image of 60x50"),
        ([1, -2, 30, 40], "outside"),
        ([1, 2, 62, 40], "outside"),
        ([1, 2, 30, 51.5], "outside"),
        ([70, 60, 80, 90], "outside"),
        ([60, 2, 61, 40], "outside"),  # nothing of it is left within
    ],
)
def test_what_is_no_box(corners, reason):
    with pytest.raises(ValueError, match=reason):
        usable_box(corners, 60, 50)


def test_boxes_are_clipped_and_keep_fractions():
    assert usable_box([-1, -0.5, 61, 51], 60, 50) == [0, 0, 60, 50]
    assert usable_box([1.25, 2.5, 30, 40], 60, 50) == [1.25, 2.5, 30, 40]
    assert usable_box([1, 1, 60, 50], 60, 50, first_pixel=1) == [0, 0, 60, 50]


def test_mended_boxes_are_usable_and_only_surely_meant():
    assert mended_box([30, 40, 1, 2], 60, 50) == [1, 2, 30, 40]
    assert mended_box([40, 2, 75, 40], 60, 50) == [40, 2, 60, 40]  # more than half is within
    assert mended_box([40, 2, 85, 40], 60, 50) is None
    assert mended_box([1, 2, 1, 40], 60, 50) is None
    assert mended_box([NAN, 2, 1, 40], 60, 50) is None
    assert mended_box([-3, 1, 20, 20], 60, 50, first_pixel=1) == [1, 1, 20, 20]
    assert usable_box([1, 1, 20, 20], 60, 50, first_pixel=1) == [0, 0, 20, 20]


@pytest.mark.parametrize(
    "size",
    [(0, 4), (4, -1), (True, 4), (4, None), ("4", 4), (INF, 4), (4, NAN), (10**400, 4), ([4], 4),
     (4.5, 4), ({}, 4)],
)  # fmt: skip
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match="no size in pixels"):
        image_size(*size)


def test_sizes():
    assert image_size(640, 480.0) == (640, 480)
