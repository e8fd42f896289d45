"""From a tool's arguments to a config, a seed and a log."""

from __future__ import annotations

import argparse
import os
import tempfile

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm

from ..detection.classes import class_names
from ..detection.config import load_config
from ..detection.values import TRAINING, check_rules
from ..errors import InputError


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config of ``args.config_file`` and ``args.opts``, logged as detectron2 does.

    Raises:
        InputError: as :func:`sparsedet.load_config`; where classes do not fit the model; where
            OUTPUT_DIR cannot be written; and, unless ``args.eval_only``, where a value cannot
            train.
    """
    cfg = load_config(args.config_file, args.opts)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        class_names(cfg, name)
    if not args.eval_only:
        check_rules(cfg, TRAINING)
        _check_batch(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
    _check_output(cfg.OUTPUT_DIR)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def _check_batch(images: int, processes: int) -> None:
    if images % processes:
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
