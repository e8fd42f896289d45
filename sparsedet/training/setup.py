"""From a tool's arguments to a config, a seed and a log."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.engine import default_setup

from ..detection.classes import class_names
from ..detection.config import load_config


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config of ``args.config_file`` and ``args.opts``, logged as detectron2 does.

    Raises:
        InputError: as :func:`sparsedet.load_config`, and where classes do not fit the model.
    """
    cfg = load_config(args.config_file, args.opts)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        class_names(cfg, name)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg
