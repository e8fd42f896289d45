"""Training batches in an order that can be taken up anywhere.

detectron2's loader keeps in memory what a killed run loses: how far its sampler is, the images that
wait in its two groups of aspect ratios, and the random states of its workers. Nothing of that is
kept here, because all of it follows from a seed and from how many batches were taken:

- detectron2's samplers are given the seed;
- detectron2's grouping works on the sizes in the annotations, so that batches which were trained on
  are passed over in no time, without an image being read;
- sample k of the run, counted over all processes, is augmented under random states that the seed
  and k set, whichever process does it. So the number of workers changes no picture either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import DataLoader, Dataset, Sampler

from ..compat import die_with_parent
from ..errors import InputError
from .randomness import SAMPLE, derived_seed, seeded


class TrainLoader:
    """Lists of mapped samples without end, in an order that ``seed`` determines.

    Each has this process's share of a batch.

    Args:
        records: dataset dicts; with ``grouped``, of known width and height.
        mapper: from a dataset dict to what the model takes.
        sampler: from a seed to one of detectron2's training samplers, endless.
        batch_size: of this process.
        grouped: batch images that are wider than high, and others, among themselves.
        num_workers: processes that read images; 0 reads them in this one.

    Attributes:
        seed, start: of the order, and how many batches of it are passed over. Both count when the
            first batch is asked for.
    """

    def __init__(
        self,
        records: Sequence[dict],
        mapper: Callable[[dict], Any],
        sampler: Callable[[int], Sampler],
        *,
        batch_size: int,
        grouped: bool,
        num_workers: int,
        seed: int,
    ):
        self.records = DatasetFromList(records, copy=False)  # in one buffer, which workers share
        self.shapes = [(r.get("width"), r.get("height")) for r in records] if grouped else None
        if grouped and not all(map(all, self.shapes)):
            raise InputError(
                "DATALOADER.ASPECT_RATIO_GROUPING: the dataset does not say the width and height "
                "of all its images; set it to False"
            )
        self.mapper, self.sampler = mapper, sampler
        self.batch_size, self.num_workers = batch_size, num_workers
        self.seed, self.start = seed, 0

    def __iter__(self) -> Iterator[list]:
        batches = islice(self.batches(), self.start, None)
        samples = iter(
            DataLoader(
                _Augmented(self.records, self.mapper, self.seed),
                sampler=chain.from_iterable(batches),
                batch_size=None,  # so that workers share the work on each batch
                collate_fn=_as_it_is,
                num_workers=self.num_workers,
                worker_init_fn=end_with_parent,
                generator=torch.Generator(),  # leave the run's own alone
            )
        )
        while True:
            yield list(islice(samples, self.batch_size))

    def batches(self) -> Iterator[list[tuple[int, int]]]:
        """For each batch its samples: which they are in the run, and which record each shows."""
        rank, processes = comm.get_rank(), comm.get_world_size()
        indices = enumerate(self.sampler(self.seed))
        samples = ((rank + count * processes, index) for count, index in indices)
        if self.shapes is None:
            while True:
                yield list(islice(samples, self.batch_size))
        sized = (
            {"width": self.shapes[index][0], "height": self.shapes[index][1], "sample": (k, index)}
            for k, index in samples
        )
        for batch in AspectRatioGroupedDataset(sized, self.batch_size):
            yield [item["sample"] for item in batch]


class _Augmented(Dataset):
    def __init__(self, records: Dataset, mapper: Callable[[dict], Any], seed: int):
        # Workers that are not forked get it pickled.
        self.records, self.mapper, self.seed = records, PicklableWrapper(mapper), seed

    def __getitem__(self, sample: tuple[int, int]) -> Any:
        k, index = sample
        with seeded(derived_seed(self.seed, SAMPLE, k)):
            return self.mapper(self.records[index])


def end_with_parent(worker: int) -> None:
    """In a worker: it ends at once with who reads its images, not seconds later as torch has it."""
    die_with_parent()


def _as_it_is(sample: Any) -> Any:
    return sample


def share_of_batch(images: int, processes: int) -> int:
    """How many images of a batch each process takes.

    Raises:
        InputError: they cannot share it evenly.
    """
    if processes < 1 or images < 1 or images % processes:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {images}, which {processes} processes cannot share evenly; "
            "make it a multiple"
        )
    return images // processes


def build_train_loader(
    cfg: CfgNode, records: list[dict], mapper: Callable[[dict], Any], seed: int
) -> TrainLoader:
    """Dataset dicts as ``detectron2.data.build_detection_train_loader`` loads them by a config.

    Raises:
        InputError: a batch that the processes cannot share, or a sampler that does not exist.
    """
    batch_size = share_of_batch(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
    return TrainLoader(
        records,
        mapper,
        _sampler(cfg, records),
        batch_size=batch_size,
        grouped=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        seed=seed,
    )


def _sampler(cfg: CfgNode, records: list[dict]) -> Callable[[int], Sampler]:
    kind, size = cfg.DATALOADER.SAMPLER_TRAIN, len(records)
    if kind == "TrainingSampler":
        return lambda seed: TrainingSampler(size, seed=seed)
    if kind == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if kind == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        return lambda seed: RandomSubsetTrainingSampler(
            size, ratio, seed_shuffle=seed, seed_subset=seed
        )
    raise InputError(
        f"DATALOADER.SAMPLER_TRAIN: there is no {kind}; TrainingSampler, "
        "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler"
    )
