"""From a tool's arguments to a config, a seed and a log."""

from __future__ import annotations

import argparse
import os
import tempfile

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm

from ..detection.classes import class_names
from ..detection.config import load_config
from ..detection.values import EVALUATION, TRAINING, check_rules
from ..errors import InputError


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config of ``args.config_file`` and ``args.opts``, logged as detectron2 does.

    Raises:
        InputError: as :func:`sparsedet.load_config`; where classes do not fit the model, a data set
            is not there or OUTPUT_DIR cannot be written; and where values cannot train or, with
            ``args.eval_only``, cannot evaluate.
    """
    cfg = load_config(args.config_file, args.opts)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        class_names(cfg, name)
    check_rules(cfg, EVALUATION if args.eval_only else TRAINING)
    for name in cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN + cfg.DATASETS.TEST:
        _check_presence(name)
    if not args.eval_only:
        _check_batch(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
        _check_batch(cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE or 1)
    _check_output(cfg.OUTPUT_DIR)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def _check_presence(dataset: str) -> None:
    metadata = MetadataCatalog.get(dataset)
    place = metadata.get("json_file") or metadata.get("dirname")
    if place and "://" not in place and not os.path.exists(place):
        raise InputError(
            f"DATASETS: {dataset}: there is no {place}; put it there, or set DETECTRON2_DATASETS "
            "to the folder of the data sets (datasets/README.md)"
        )


def _check_batch(images: int, processes: int) -> None:
    if processes < 1 or images % processes:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {images}; expected a multiple of the {processes} processes"
        )


def _check_output(folder: str) -> None:
    """Find out before hours of work whether their result can be written."""
    if not folder or "://" in folder:
        raise InputError(f"OUTPUT_DIR is {folder!r}; name a folder for what is written")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise InputError(f"OUTPUT_DIR {folder}: cannot be written: {error.strerror}") from error
