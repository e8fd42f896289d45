"""What a checkpoint says of its run, and what may be changed when the run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..config import leaves
from ..errors import InputError

# What these decide is in the state of the optimizer, parameter by parameter, or is what the run
# began with. Any other key is honoured from the resumed iteration on.
FIXED = {
    "MODEL.BACKBONE.FREEZE_AT": "which layers are trained",
    "MODEL.CLASSIFIER.FROZEN": "which layers are trained",
    "SOLVER.BIAS_LR_FACTOR": "which parameters have rates of their own",
    "SOLVER.WEIGHT_DECAY_BIAS": "which parameters have decays of their own",
    "SOLVER.WEIGHT_DECAY_NORM": "which parameters have decays of their own",
    "SEED": "the order of the images",
}


def with_seed(cfg: CfgNode, seed: int | None = None) -> CfgNode:
    """A frozen ``cfg`` with ``seed`` or, without one, with its own, drawn if it has none."""
    cfg = cfg.clone()
    cfg.defrost()
    if seed is not None:
        cfg.SEED = seed
    elif cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
        logging.getLogger(__name__).info(f"SEED is not set: that of this run is {cfg.SEED}")
    cfg.freeze()
    return cfg


def run_settings(cfg: CfgNode) -> dict[str, Any]:
    """Every key of the config with its value, and the number of processes."""
    return {**dict(leaves(cfg)), "processes": comm.get_world_size()}


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Log how the settings of a resumed run differ from what they were.

    Args:
        before, now: as :func:`run_settings` gives them.
        folder: of the run.

    Raises:
        InputError: one differs that a run keeps to its end.
    """
    changed = [key for key in now if key in before and before[key] != now[key]]
    for key in changed:
        if key in FIXED:
            raise InputError(
                f"{key} is {now[key]}, but the run in {folder} began with {before[key]}, which "
                f"decides {FIXED[key]} to its end; set it back, or start another run without "
                "--resume, from MODEL.WEIGHTS"
            )
    if changed:
        logging.getLogger(__name__).warning(
            "From here on: %s",
            "; ".join(f"{key} {now[key]} (was {before[key]})" for key in changed),
        )
