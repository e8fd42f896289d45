"""The training loader: detectron2's order and grouping, from any batch on, whoever reads."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler

from sparsedet.data.loader import TrainLoader, build_train_loader
from sparsedet.data.randomness import derived_seed, seeded
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.model_zoo import get_config_file

RECORDS = [
    {"number": i, "width": 100, "height": 80 if i % 3 else 120, "file_name": f"{i}.png"}
    for i in range(11)
]


def augmented(record):
    """What is random in all three ways, beside which record it is."""
    return {**record, "random": (random.random(), np.random.rand(), torch.rand(()).item())}


def loader(mapper=augmented, seed=3, grouped=True, num_workers=0):
    return TrainLoader(
        RECORDS,
        mapper,
        lambda seed: TrainingSampler(len(RECORDS), seed=seed),
        batch_size=2,
        grouped=grouped,
        num_workers=num_workers,
        seed=seed,
    )


def take(batches, count):
    return list(islice(iter(batches), count))


@pytest.mark.parametrize("grouped", [True, False])
def test_the_batches_are_those_of_detectron2(grouped):
    theirs = build_detection_train_loader(
        RECORDS,
        mapper=lambda record: record,
        sampler=TrainingSampler(len(RECORDS), seed=3),
        total_batch_size=2,
        aspect_ratio_grouping=grouped,
    )
    assert take(loader(lambda record: record, grouped=grouped), 30) == take(theirs, 30)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_goes_on_from_any_batch_with_any_number_of_workers(num_workers):
    whole = take(loader(), 12)
    assert len({sample["random"] for batch in whole for sample in batch}) == 24
    rest = loader(num_workers=num_workers)
    rest.start = 5
    assert take(rest, 7) == whole[5:]
    rest.seed = 4
    assert take(rest, 7) != whole[5:]


def test_images_that_were_passed_over_are_not_read():
    read = []
    rest = loader(lambda record: read.append(record["number"]))
    rest.start = 10_000
    take(rest, 1)
    assert len(read) == 2


def test_random_numbers_of_the_run_are_left_alone():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    with seeded(0):
        expected = [draw() for _ in range(3)]
    with seeded(0):
        batches, found = iter(loader()), []
        for _ in range(3):
            found.append(draw())
            next(batches)
    assert found == expected


def test_seeds_differ_by_each_counter():
    seeds = {derived_seed(s, a, b) for s in range(4) for a in range(4) for b in range(4)}
    assert len(seeds) == 64 and all(0 <= seed < 2**32 for seed in seeds)


def test_what_cannot_be_loaded_is_told(tmp_path):
    with pytest.raises(InputError, match="ASPECT_RATIO_GROUPING: .*width and height"):
        TrainLoader([{}], augmented, None, batch_size=1, grouped=True, num_workers=0, seed=0)
    opts = ["SOLVER.IMS_PER_BATCH", 0]
    cfg = load_config(get_config_file("Shapes-Detection/faster_rcnn_VGG_11.yaml"), opts)
    with pytest.raises(InputError, match="SOLVER.IMS_PER_BATCH is 0, which 1 processes"):
        build_train_loader(cfg, [{}], augmented, 0)
