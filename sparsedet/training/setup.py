"""From a tool's arguments to a config, a folder that is the run's own, and a log."""

from __future__ import annotations

import argparse
import glob
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..data.loader import share_of_batch
from ..detection.classes import class_names
from ..detection.config import load_config
from ..detection.lazy import is_lazy
from ..detection.values import EVALUATION, TRAINING, check_rules
from ..errors import InputError
from ..files import locked, replacing


@contextmanager
def setup(args: argparse.Namespace) -> Iterator[CfgNode]:
    """The frozen config of ``args.config_file`` and ``args.opts``; the run is within the block.

    As detectron2's ``default_setup``, with three differences: within the block OUTPUT_DIR is closed
    to other runs; config.yaml there is written whole or not at all; and an evaluation leaves one
    that is there as it is, for it may be the very file that was given, to be given again.

    Raises:
        InputError: as :func:`sparsedet.load_config`; where classes do not fit the model, a data set
            is not there, OUTPUT_DIR cannot be written or another run is at work in it; and where
            values cannot train or, with ``args.eval_only``, cannot evaluate.
    """
    cfg = load_config(args.config_file, args.opts)
    if is_lazy(args.config_file) and not args.eval_only:
        raise InputError(
            f"{args.config_file}: a LazyConfig trains by its own nodes: run detectron2's "
            f"tools/lazyconfig_train_net.py --config-file {args.config_file}"
        )
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        class_names(cfg, name)
    check_rules(cfg, EVALUATION if args.eval_only else TRAINING)
    for name in cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN + cfg.DATASETS.TEST:
        check_presence(name)
    if not args.eval_only:
        share_of_batch(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
        share_of_batch(cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE or 1)
    _check_output(cfg.OUTPUT_DIR)
    cfg.freeze()
    with locked(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        if comm.is_main_process():
            for left in glob.glob(os.path.join(glob.escape(cfg.OUTPUT_DIR), "*.tmp")):
                os.remove(left)  # by a run that was killed while it wrote
            config = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
            if not (args.eval_only and os.path.exists(config)):
                with replacing(config) as temporary, open(temporary, "w", encoding="utf-8") as file:
                    file.write(cfg.dump())
        _log(cfg, args)
        seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
        if not args.eval_only:
            torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        yield cfg


def _log(cfg: CfgNode, args: argparse.Namespace) -> None:
    """To the terminal, and to log.txt of each process."""
    comm.synchronize()  # the folder is there
    # The death of a worker raises in whatever runs, which may be a line that is being logged.
    logging.raiseExceptions = False
    for name in ("fvcore", "detectron2", "sparsedet"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)
    # detectron2 logs an error that ends the training, which is told once in the terminal.
    for handler in logging.getLogger("detectron2").handlers:
        if getattr(handler, "stream", None) is sys.stdout:  # log.txt keeps it
            handler.addFilter(_is_told)
    logger = logging.getLogger(__name__)
    logger.info(f"Rank of current process: {comm.get_rank()}. World size: {comm.get_world_size()}")
    logger.info("Environment info:\n" + collect_env_info())
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Running with full config:\n{cfg.dump()}")


def _is_told(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def check_presence(dataset: str) -> None:
    """Find out before anything is done whether the files of a data set are there.

    Raises:
        InputError: they are not.
    """
    metadata = MetadataCatalog.get(dataset)
    place = metadata.get("json_file") or metadata.get("dirname")
    if place and "://" not in place and not os.path.exists(place):
        raise InputError(
            f"DATASETS: {dataset}: there is no {place}; put it there, or set DETECTRON2_DATASETS "
            "to the folder of the data sets (datasets/README.md)"
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
