"""Panoptic quality against numbers that were computed by hand."""

import numpy as np
import pytest

from sparsedet.evaluation.panoptic_quality import count_segments, panoptic_quality

CAT, SKY, GRASS = 5, 20, 21
THINGS = {CAT: True, SKY: False, GRASS: False}


def strips(*widths):
    """A picture of one row, of (segment, pixels)."""
    return np.concatenate([np.full(width, segment) for segment, width in widths])[None]


def quality(truth, segments, found, categories):
    return panoptic_quality(count_segments(truth, segments, found, categories), THINGS)


def test_by_hand():
    # cat 1: 10 pixels, 8 found with 2 others: IoU 8/12; cat 2 is missed; one cat is made up.
    # sky: 20 pixels, 18 found, of which none is wrong: IoU 18/20. grass: nobody.
    truth = strips((1, 10), (2, 4), (3, 20), (0, 10))
    found = strips((7, 8), (0, 2), (7, 2), (0, 2), (8, 18), (0, 2), (9, 10))
    segments = [
        {"id": 1, "category_id": CAT},
        {"id": 2, "category_id": CAT},
        {"id": 3, "category_id": SKY},
    ]
    result = quality(truth, segments, found, {7: CAT, 8: SKY, 9: CAT})
    cat, sky = 8 / 12, 18 / 20
    # what is found on unannotated pixels (9) is not wrong
    assert result["SQ_th"] == pytest.approx(100 * cat)
    assert result["RQ_th"] == pytest.approx(100 * 1 / 1.5)
    assert result["PQ_th"] == pytest.approx(100 * cat / 1.5)
    assert result["PQ_st"] == pytest.approx(100 * sky)
    assert result["PQ"] == pytest.approx(100 * (cat / 1.5 + sky) / 2)


def test_a_made_up_segment_counts_half():
    truth = strips((1, 10), (3, 20))
    found = strips((7, 10), (8, 10), (9, 10))
    segments = [{"id": 1, "category_id": CAT}, {"id": 3, "category_id": SKY}]
    result = quality(truth, segments, found, {7: CAT, 8: CAT, 9: SKY})
    assert result["PQ_th"] == pytest.approx(100 / 1.5)
    # half of the sky is no match: IoU must be above a half. One is missed, one is wrong.
    assert (result["PQ_st"], result["SQ_st"], result["RQ_st"]) == (0, 0, 0)


def test_crowds_match_nothing_and_excuse_what_lies_in_them():
    truth = strips((1, 10), (2, 30))
    segments = [{"id": 1, "category_id": CAT}, {"id": 2, "category_id": CAT, "iscrowd": 1}]
    found = strips((7, 10), (8, 10), (9, 20))
    assert quality(truth, segments, found, {7: CAT, 8: CAT, 9: SKY})["PQ_th"] == 100
    # a sky in a crowd of cats is a sky too many
    assert quality(truth, segments, found, {7: CAT, 8: CAT, 9: SKY})["PQ_st"] == 0


def test_unannotated_pixels_are_not_in_the_union():
    truth, found = strips((1, 10), (0, 30)), strips((7, 40))
    assert quality(truth, [{"id": 1, "category_id": CAT}], found, {7: CAT})["PQ"] == 100


def test_classes_must_agree_and_nothing_is_nan():
    truth, found = strips((1, 10)), strips((7, 10))
    result = quality(truth, [{"id": 1, "category_id": CAT}], found, {7: SKY})
    assert result["PQ"] == 0
    assert np.isnan(quality(truth, [], strips((0, 10)), {})["PQ"])
