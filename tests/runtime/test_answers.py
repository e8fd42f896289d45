"""What the runtime makes of a graph's outputs is what detectron2 makes of a model's."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.structures.keypoints import heatmaps_to_keypoints
from pycocotools import mask as coco

from sparsedet.runtime.answers import is_answer, read_answer
from sparsedet.runtime.keypoints import maps_to_keypoints
from sparsedet.runtime.labels import Labels
from sparsedet.runtime.masks import Masks
from sparsedet.runtime.model_info import BOXES, ModelInfo
from sparsedet.runtime.panoptic import combine, panoptic
from sparsedet.runtime.rle import encode
from sparsedet.runtime.semantic import semantic_map


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_boxes(rng, count, height, width):
    """Inside the image, each of some area."""
    corners = rng.uniform(-10, max(height, width) + 10, (count, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes = boxes.clip(0, np.float32([width, height, width, height]))
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


@pytest.mark.parametrize("values", ["soft", "hard", "trained"])
def test_masks_are_pasted_bit_for_bit(rng, values):
    pasted = 0
    for side, height, width in [(28, 97, 131), (14, 300, 40), (28, 31, 33), (7, 211, 307)]:
        boxes = some_boxes(rng, 40, height, width)
        boxes[::2] = boxes[::2].round()  # whole pixels, where samples fall between two places
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        noise = rng.normal(0, 5, (len(boxes), side, side))
        small = {
            "soft": rng.random(noise.shape),
            "hard": noise > 0,
            "trained": 1 / (1 + np.exp(-noise)),
        }[values].astype(np.float32)
        expected = paste_masks_in_image(
            torch.from_numpy(small), Boxes(torch.from_numpy(boxes)), (height, width)
        ).numpy()
        masks = Masks(small, boxes, (height, width))
        np.testing.assert_array_equal(np.asarray(masks), expected)
        np.testing.assert_array_equal(masks[3], expected[3])
        np.testing.assert_array_equal(np.asarray(masks[2:5]), expected[2:5])
        pasted += expected.sum()
    assert pasted > 10_000
    none = Masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 7))
    assert np.asarray(none).shape == (0, 5, 7) and len(none) == 0


def test_a_mask_of_a_box_without_an_area_is_empty():
    small = np.ones((1, 28, 28), np.float32)
    for box in ([5, 5, 5, 9], [3, 3, 3, 3], [0, 0, np.inf, 4]):
        assert not Masks(small, np.float32([box]), (20, 20))[0].any()


def test_keypoints_are_where_detectron2_finds_them(rng):
    boxes = some_boxes(rng, 12, 200, 300)
    boxes[0] = 5, 5, 5.2, 5.3  # less than a pixel
    maps = rng.normal(0, 3, (len(boxes), 5, 14, 14)).astype(np.float32)
    expected = heatmaps_to_keypoints(torch.from_numpy(maps), torch.from_numpy(boxes))
    found = maps_to_keypoints(maps, boxes)
    np.testing.assert_allclose(found, expected[:, :, [0, 1, 3]], rtol=1e-4, atol=1e-3)
    assert maps_to_keypoints(maps[:0], boxes[:0]).shape == (0, 5, 3)


def test_semantic_maps_are_resized_as_detectron2_does(rng):
    scores = torch.from_numpy(rng.normal(size=(5, 16, 24)).astype(np.float32))
    for seen, size in [((60, 90), (60, 90)), ((61, 93), (37, 200)), ((64, 96), (300, 41))]:
        large = torch.nn.functional.interpolate(
            scores[None], scale_factor=4, mode="bilinear", align_corners=False
        )[0]
        expected = sem_seg_postprocess(large, seen, *size).argmax(dim=0).numpy()
        found = semantic_map(scores.numpy(), 4, seen, size)
        assert found.dtype == np.uint8 and (found != expected).mean() < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_maps_are_combined_as_detectron2_does(seed):
    rng = np.random.default_rng(seed)
    height, width, count = 60, 80, 8
    boxes = some_boxes(rng, 3 * count, height, width)[:count]
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int)):
        mask[y0:y1, x0:x1] = True
    scores = np.sort(rng.random(len(boxes)).astype(np.float32))[::-1].copy()
    classes = rng.integers(0, 3, len(boxes))
    semantic = rng.integers(0, 4, (6, 8)).repeat(10, 0).repeat(10, 1)
    instances = Instances(
        (height, width), pred_masks=torch.from_numpy(masks), scores=torch.from_numpy(scores),
        pred_classes=torch.from_numpy(classes),
    )  # fmt: skip
    rules = {"overlap": 0.5, "area": 350, "score": 0.3}
    ids, segments = combine_semantic_and_instance_outputs(
        instances, torch.from_numpy(semantic), 0.5, 350, 0.3
    )
    found, kinds = combine(masks, scores, classes, semantic, rules)
    np.testing.assert_array_equal(found, ids.numpy())
    assert kinds == [(s["category_id"], s["isthing"]) for s in segments] and len(kinds) > 2
    named = panoptic(found, kinds, ["a", "b", "c"], ["things", "x", "y", "z"])
    areas = [s.area for s in named.segments]
    assert areas == [(found == i + 1).sum() for i in range(len(areas))]
    for mine, theirs in zip(named.segments, segments):
        assert mine.area == theirs.get("area", mine.area)
        assert mine.name == (["a", "b", "c"] if mine.isthing else "_xyz")[mine.category_id]


def test_run_lengths_are_coco_s(rng):
    masks = [rng.random((37, 53)) < p for p in (0.0, 0.01, 0.5, 0.99, 1.0)]
    masks += [np.zeros((500, 700), bool), np.ones((1, 1), bool), rng.random((1, 90)) < 0.5]
    masks[5][100:400, 5:600] = True
    masks[5][250, 300] = False
    for mask in masks:
        entry = encode(mask)
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert entry == {"size": expected["size"], "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(coco.decode(entry), mask)


INFO = ModelInfo(
    ["cup"], "BGR", 0, 0, 1, 0.05, "f32", "0.2.0",
    outputs=[*BOXES, "masks", "keypoint_maps", "semantic"], semantic_stride=4,
    labels=Labels(stuff_names=["things", "wall"], keypoint_names=["a", "b", "c"]),
)  # fmt: skip


def answer(count=2):
    return {
        "boxes": np.float32([[0, 0, 8, 8], [2, 2, 9, 9]])[:count],
        "scores": np.float32([0.9, 0.8])[:count],
        "classes": np.zeros(count, np.int64),
        "masks": np.ones((count, 28, 28), np.float32),
        "keypoint_maps": np.zeros((count, 3, 14, 14), np.float32),
        "semantic": np.zeros((2, 4, 5), np.float32),
    }


def test_answers_of_other_shapes_are_told():
    assert is_answer(answer(), INFO) and is_answer(answer(0), INFO)
    for name, wrong in {
        "boxes": np.zeros((2, 5), np.float32),
        "scores": np.zeros((2, 1), np.float32),
        "classes": np.array([0, 1]),
        "masks": np.ones((2, 28, 14), np.float32),
        "keypoint_maps": np.zeros((2, 4, 14, 14), np.float32),
        "semantic": np.full((2, 4, 5), np.nan, np.float32),
    }.items():
        assert not is_answer({**answer(), name: wrong}, INFO), name
    assert not is_answer({**answer(), "semantic": np.zeros((3, 4, 5), np.float32)}, INFO)


def test_a_box_that_vanishes_takes_its_mask_and_its_keypoints_along():
    found = answer()
    found["boxes"][0] = 12, 3, 15, 8  # right of the image
    found["masks"][0] = 0
    detections = read_answer(found, INFO, (10, 10), (20, 20))
    assert len(detections) == len(detections.masks) == len(detections.keypoints) == 1
    np.testing.assert_array_equal(detections.boxes, [[4, 4, 18, 18]])
    assert detections.masks[0].sum() == 14 * 14
    assert detections.summary() == (1, "classes")
    assert len(detections.above(0.85)) == len(detections.above(0.85).masks) == 0
