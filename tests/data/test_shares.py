"""Shares of images: complementary, and the same wherever and whenever they are taken."""

import random

import pytest
from detectron2.config import CfgNode, get_cfg

from sparsedet import add_sparsedet_config
from sparsedet.data import register_datasets
from sparsedet.data.shares import Share
from sparsedet.errors import InputError

NAMES = [f"picture-{i}" for i in range(137)]


@pytest.mark.parametrize("size", [0.8, 0.7, 0.55, 0.9, 1 / 3])
@pytest.mark.parametrize("count", [10, 11, 16, 137])
def test_the_shares_of_train_and_test_are_all_images(size, count):
    names = NAMES[:count]
    train = Share("train", size).take(names, "a")
    test = Share("test", 1 - size).take(names, "a")
    assert train | test == set(names) and not train & test
    assert abs(len(train) - size * count) <= 0.5 + 1e-6


def test_a_share_does_not_depend_on_the_order_and_is_not_the_first_names():
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    share = Share("train", 0.5)
    assert share.take(shuffled, "a") == share.take(NAMES, "a") != set(NAMES[:68])


def test_a_share_stays_as_it_is():
    # A change would move images from training to test in runs that are half done.
    assert Share("test", 0.3).take(NAMES[:10], "a") == {"picture-0", "picture-5", "picture-4"}


def test_a_new_image_moves_few():
    before = Share("test", 0.2).take(NAMES, "a")
    after = Share("test", 0.2).take([*NAMES, "new"], "a")
    assert len(before ^ after) <= 2


def test_an_empty_share_is_refused():
    with pytest.raises(InputError, match="a: no image is in {test: 0.1}, of the 3 there are"):
        Share("test", 0.1).take(NAMES[:3], "a")


def test_overlapping_shares_are_refused():
    def config(**shares):
        cfg = get_cfg()
        add_sparsedet_config(cfg)
        entries = {
            f"overlap_{name}": {
                "format": "voc",
                "root": "nowhere",
                "split": {name: size},
                "classes": ["a"],
            }
            for name, size in shares.items()
        }
        cfg.DATASETS.REGISTER = CfgNode(entries, new_allowed=True)
        return cfg

    with pytest.raises(InputError, match="overlap_train and overlap_test have images in common"):
        register_datasets(config(train=0.8, test=0.3))
    register_datasets(config(train=0.7, test=0.3))
