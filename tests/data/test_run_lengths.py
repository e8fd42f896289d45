"""Compressed run lengths are checked before pycocotools, in C, writes them into an image."""

import numpy as np
import pycocotools.mask
import pytest

from sparsedet.data.coco_json import read_object


def mask_of(counts, height, width):
    """What is left of a mask, and what is said of it."""
    box = {"bbox": [0, 0, width, height]}
    obj, lost = read_object(
        {**box, "segmentation": {"size": [height, width], "counts": counts}}, "cup", width, height
    )
    return obj.extra.get("segmentation"), lost


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 211)])
def test_what_pycocotools_writes_is_taken(share, size):
    mask = np.asfortranarray(np.random.default_rng(0).random(size) < share, np.uint8)
    counts = pycocotools.mask.encode(mask)["counts"].decode()
    found, lost = mask_of(counts, *size)
    assert not lost
    np.testing.assert_array_equal(pycocotools.mask.decode(found), mask)


@pytest.mark.parametrize(
    "counts", ["", "é", "P", "oooo", "0" * 40, "oooooooooooooooo0", "~~", "\0"]
)
def test_what_is_of_another_image_or_none_is_left_out(counts):
    found, lost = mask_of(counts, 7, 5)
    assert found is None and (lost or counts == "")


def test_one_pixel_too_many_is_seen():
    counts = pycocotools.mask.encode(np.asfortranarray(np.eye(6, 5), np.uint8))["counts"].decode()
    assert mask_of(counts, 6, 5)[0] and mask_of(counts, 5, 6)[0]  # as many pixels
    assert mask_of(counts, 7, 5)[0] is None
