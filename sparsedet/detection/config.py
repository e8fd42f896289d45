"""Configs: from a yaml file, checked, with its own datasets; and of what a model becomes."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from ..compress.entries import without_information
from ..config import add_sparsedet_config
from ..data import register_datasets
from ..errors import InputError
from ..images import CHANNELS
from ..modeling import sparsified_config
from ..yaml_files import read_with_base
from .lazy import is_lazy, read_lazy
from .values import check_values

FINETUNING = 4
"""A compressed model is fine-tuned for this share of the dense model's schedule."""


def load_config(path: str | os.PathLike, opts: Sequence[str] = ()) -> CfgNode:
    """The config of a file and command-line overrides, its own datasets registered.

    MODEL.DEVICE, by default cuda, becomes cpu where there is no GPU.

    Args:
        path: a yaml file; ``_BASE_`` is followed as in detectron2. Or a LazyConfig (.py), which is
            code and is run.
        opts: KEY VALUE KEY VALUE ..., and of a LazyConfig node=value

    Raises:
        InputError: no such file, not yaml, a key that does not exist, a value of another type, of
            no number or out of range, a name that is not registered, an INPUT.FORMAT that is
            neither BGR nor RGB.
    """
    path, cfg = os.fspath(path), get_cfg()
    add_sparsedet_config(cfg)
    defaults = cfg.clone()
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such config file")
    if is_lazy(path):
        cfg, opts = read_lazy(path, cfg, opts)
    else:
        _merge_file(cfg, path)
    if len(opts) % 2:
        raise InputError(f"config overrides come in pairs KEY VALUE: {' '.join(opts)}")
    try:
        cfg.merge_from_list(list(opts))
    except Exception as error:  # yacs evaluates the texts, as Python's literals
        raise InputError(f"{' '.join(opts)}: {_explain(error, cfg)}") from error
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        logging.getLogger(__name__).warning("no GPU is available: MODEL.DEVICE is cpu")
        cfg.MODEL.DEVICE = "cpu"
    check_input_format(cfg)
    check_values(cfg, defaults)
    register_datasets(cfg)
    return cfg


def check_input_format(cfg: CfgNode) -> None:
    """detectron2 trains on grey, YUV and other modes of Pillow, and its own predictor on none.

    Raises:
        InputError: INPUT.FORMAT is neither BGR nor RGB.
    """
    if cfg.INPUT.FORMAT not in CHANNELS:
        raise InputError(
            f"INPUT.FORMAT: {cfg.INPUT.FORMAT!r} is not one of {', '.join(CHANNELS)}; set one of "
            "them: grey pictures are read as three equal channels"
        )


def check_proposals(cfg: CfgNode) -> None:
    """Raise InputError for a Fast R-CNN, which cannot run on an image alone."""
    if cfg.MODEL.LOAD_PROPOSALS:
        raise InputError(
            "MODEL.LOAD_PROPOSALS: a model of precomputed proposals does not run on images alone; "
            "it trains, is evaluated, and is compressed by compress_(model, batches=...) of inputs "
            "with their 'proposals'"
        )


def _merge_file(cfg: CfgNode, path: str) -> None:
    """By a file of our own, as that is how detectron2 upgrades configs of older versions.

    It does not get the user's, for it would run code that is in one.
    """
    values = read_with_base(path)
    try:
        _merge(cfg, values)
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: {_explain(error, cfg)}") from error


def _merge(cfg: CfgNode, values: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(values, file)
        cfg.merge_from_file(path, allow_unsafe=False)


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _explain(error: Exception, cfg: CfgNode) -> str:
    """One line of what yacs said, with the nearest existing key where a key does not exist."""
    text = _one_line(error)
    mismatch = re.match(
        r"Type mismatch \(<class '(.*?)'>.*\) with values \((.*) vs. (.*)\) for config key: (.*)",
        text,
    )
    if mismatch:
        kind, example, value, key = mismatch.groups()
        if kind.endswith("CfgNode"):
            return f"{key} is {value}; it has keys of its own, to be named one by one"
        return f"{key} is {value}; expected a value of type {kind}, such as {example}"
    if isinstance(error, TypeError):
        return "a key goes on below one that has a value, not keys"
    if not text.startswith("Non-existent"):
        return text
    close = difflib.get_close_matches(text.split()[-1], _keys(cfg), n=1, cutoff=0.6)
    return text + (f"; did you mean {close[0]}?" if close else "")


def _keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _keys(value, prefix + key + ".")
    return keys


def compact_config(cfg: CfgNode, plan: Mapping[str, Mapping[str, Any]], folder: str) -> CfgNode:
    """The config of a model that was compressed, whose weights are ``folder/model.pth``.

    It trains for a quarter of the dense schedule, at a third of its rate, into ``folder/finetune``.

    Args:
        cfg: of the dense model.
        plan: as ``plan.yaml`` has it.

    Raises:
        InputError: ``cfg`` plans compact layers already.
    """
    compact = sparsified_config(cfg, without_information(plan))
    compact.MODEL.WEIGHTS = os.path.join(folder, "model.pth")
    compact.OUTPUT_DIR = os.path.join(folder, "finetune")
    solver = compact.SOLVER
    solver.BASE_LR = cfg.SOLVER.BASE_LR / 3
    solver.MAX_ITER = max(1, cfg.SOLVER.MAX_ITER // FINETUNING)
    solver.STEPS = tuple(sorted({step // FINETUNING for step in cfg.SOLVER.STEPS}))
    solver.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, solver.MAX_ITER // 10)
    return compact
