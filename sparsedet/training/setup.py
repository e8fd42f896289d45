"""From a tool's arguments to a config, a folder that is the run's own, and a log."""

from __future__ import annotations

import argparse
import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..detection.classes import class_names
from ..detection.config import load_config
from ..files import locked, replacing


@contextmanager
def setup(args: argparse.Namespace) -> Iterator[CfgNode]:
    """The frozen config of ``args.config_file`` and ``args.opts``; the run is within the block.

    As detectron2's ``default_setup``, with two differences: within the block OUTPUT_DIR is closed
    to other runs, and config.yaml there is written whole or not at all.

    Raises:
        InputError: as :func:`sparsedet.load_config`, where classes do not fit the model, and where
            another run is at work in OUTPUT_DIR.
    """
    cfg = load_config(args.config_file, args.opts)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        class_names(cfg, name)
    cfg.freeze()
    with locked(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        if comm.is_main_process():
            for left in glob.glob(os.path.join(glob.escape(cfg.OUTPUT_DIR), "*.tmp")):
                os.remove(left)  # by a run that was killed while it wrote
            with replacing(os.path.join(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
                with open(temporary, "w", encoding="utf-8") as file:
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
    logger = logging.getLogger(__name__)
    logger.info(f"Rank of current process: {comm.get_rank()}. World size: {comm.get_world_size()}")
    logger.info("Environment info:\n" + collect_env_info())
    logger.info(f"Command line arguments: {args}")
    logger.info(f"Running with full config:\n{cfg.dump()}")
