"""Masks, skeletons and segments in pictures, in JSON and on the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco

from sparsedet.drawing import color
from sparsedet.runtime.detections import Detections
from sparsedet.runtime.labels import Labels
from sparsedet.runtime.masks import Masks
from sparsedet.runtime.panoptic import panoptic
from sparsedet.runtime.pictures import annotate, rescaled
from sparsedet.runtime.records import record

SIZE = 120, 160
LABELS = Labels(
    class_colors=[[200, 0, 0], [0, 200, 0]],
    stuff_names=["things", "wall", "floor"],
    stuff_colors=[[0, 0, 0], [0, 0, 250], [250, 250, 0]],
    keypoint_names=["a", "b", "c"],
    skeleton=[[0, 1], [1, 2]],
    skeleton_colors=[[255, 0, 255], [0, 255, 255]],
)


@pytest.fixture
def found():
    """Two detections with masks and keypoints."""
    boxes = np.float32([[20, 50, 80, 110], [90, 60, 150, 115]])
    probabilities = np.ones((2, 28, 28), np.float32)
    probabilities[1, :, 14:] = 0  # the left half of its box
    keypoints = np.float32([[[30, 70, 0.9], [60, 70, 0.8], [60, 100, 0.01]], [[100, 80, 0.9]] * 3])
    return Detections(
        boxes, np.float32([0.9, 0.7]), np.array([0, 1]), ["cup", "fork"],
        Masks(probabilities, boxes, SIZE), keypoints, labels=LABELS,
    )  # fmt: skip


def grey():
    return np.full((*SIZE, 3), 100, np.uint8)


def near(pixel, rgb):
    """Half of the colour over half of the grey picture."""
    return np.abs(pixel[::-1].astype(int) - (np.array(rgb) + 100) // 2).max() <= 1


def test_masks_are_tinted_with_the_dataset_s_colours(found):
    picture = annotate(grey(), replace(found, keypoints=None))
    assert near(picture[105, 60], [200, 0, 0]) and near(picture[110, 100], [0, 200, 0])
    assert (picture[110, 135] == 100).all()  # in the box, beyond the mask
    plain = annotate(grey(), replace(found, keypoints=None, masks=None))
    assert (plain[105, 60] == 100).all()


def test_skeletons_join_the_points_that_are_sure(found):
    picture = annotate(grey(), replace(found, masks=None))
    assert (picture[70, 45, ::-1] == [255, 0, 255]).all()  # between a and b
    assert (picture[70, 30] == 255).all() and (picture[85, 60] == 100).all()  # c is not sure


def test_segments_and_maps_are_drawn_alone(found):
    semantic = np.ones(SIZE, np.uint8)
    semantic[60:] = 2
    picture = annotate(grey(), replace(found, masks=None, keypoints=None, semantic=semantic))
    assert near(picture[5, 5], [0, 0, 250]) and near(picture[115, 5], [250, 250, 0])
    ids = np.zeros(SIZE, np.int32)
    ids[:60], ids[80:, 100:] = 1, 2
    segments = panoptic(ids, [(1, False), (1, True)], ["cup", "fork"], LABELS.stuff_names)
    picture = annotate(grey(), replace(found, semantic=semantic, panoptic=segments))
    assert near(picture[5, 5], [0, 0, 250]) and near(picture[115, 105], [0, 200, 0])
    assert (picture[70, 70] == 100).all()  # of no segment
    bare = replace(found, labels=Labels(stuff_names=LABELS.stuff_names), panoptic=segments)
    picture = annotate(grey(), bare)
    assert near(picture[115, 105], color(1)) and not near(picture[5, 5], color(1))


def test_a_copy_of_another_size_shows_the_same_places(found):
    ids = np.zeros(SIZE, np.int32)
    ids[:60] = 1
    found = replace(
        found, semantic=ids.astype(np.uint8), panoptic=panoptic(ids, [(1, False)], [], ["", "wall"])
    )
    large = rescaled(found, (2.0, 3.0), (360, 320))
    np.testing.assert_array_equal(large.boxes, found.boxes * [2, 3, 2, 3])
    assert large.masks[0].shape == (360, 320)
    assert large.masks[0].sum() == pytest.approx(6 * found.masks[0].sum(), rel=0.01)
    np.testing.assert_array_equal(large.keypoints[0, 0], np.float32([60, 210, 0.9]))
    assert (large.panoptic.ids == 1).sum() == 6 * (ids == 1).sum() == large.semantic.sum()


def test_json_is_coco_s(found):
    entry = json.loads(json.dumps(record("a.png", grey(), found)))
    first, second = entry["detections"]
    assert first["box"] == [20, 50, 80, 110] and first["class"] == "cup"
    for detection, mask in zip(entry["detections"], found.masks):
        np.testing.assert_array_equal(coco.decode(detection["segmentation"]), mask)
    # As detectron2's instances_to_coco_json: from the centers of pixels.
    assert first["keypoints"] == [29.5, 69.5, 0.9, 59.5, 69.5, 0.8, 59.5, 99.5, 0.01]
    assert set(record("a.png", grey(), replace(found, masks=None, keypoints=None))) == {
        "file", "width", "height", "detections",
    }  # fmt: skip


def test_json_of_maps(found):
    ids = np.zeros(SIZE, np.int32)
    ids[:60], ids[80:, 100:] = 1, 2
    segments = panoptic(ids, [(1, False), (1, True)], ["cup", "fork"], LABELS.stuff_names)
    entry = json.loads(json.dumps(record("a.png", grey(), replace(found, panoptic=segments))))
    wall, fork = entry["segments_info"]
    assert (wall["id"], wall["category_id"], wall["isthing"], wall["class"]) == (
        1,
        1,
        False,
        "wall",
    )
    assert (fork["id"], fork["isthing"], fork["class"], fork["area"]) == (2, True, "fork", 40 * 60)
    np.testing.assert_array_equal(coco.decode(fork["segmentation"]), ids == 2)
    entry = record("a.png", grey(), replace(found, semantic=ids.astype(np.uint8)))
    assert [part["class"] for part in entry["semantic"]] == ["things", "wall", "floor"]
    assert sum(part["area"] for part in entry["semantic"]) == ids.size
