"""Apply the plan in a config to one part of a model."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.config import CfgNode
from torch import nn

from ..compress import resolve_plan, sparsify_, uniform_plan
from ..errors import InputError
from .memory_format import enter_in_channels_last_

BACKBONE = "backbone."
RPN_HEAD = "proposal_generator.rpn_head."


def sparsify_by_config(module: nn.Module, cfg: CfgNode, scope: str) -> nn.Module:
    """Replace layers of ``module``, which lies at ``scope`` in the model, with fresh ones.

    ``MODEL.SPARSE_FUSION.PLAN``, where it is not empty, is the plan; otherwise PATTERN and RATIO
    are used wherever INCLUDE and EXCLUDE allow, on convolutions whose window PATTERN splits. All
    names are those of the whole model.

    Raises:
        InputError: a name that is not a layer of this model.
    """
    options = cfg.MODEL.SPARSE_FUSION
    if options.PLAN:
        _check_scopes(cfg)
        plan = resolve_plan(module, _entries_under(scope, options.PLAN))
    else:
        plan = uniform_plan(
            module,
            options.PATTERN,
            options.RATIO,
            options.INCLUDE,
            options.EXCLUDE,
            scope,
            windows_only=True,
        )
    sparsify_(module, plan, project=False)
    return enter_in_channels_last_(module) if scope == BACKBONE else module


def _entries_under(scope: str, plan: CfgNode) -> dict:
    entries = {}
    for name, entry in plan.items():
        if not name.startswith(scope):
            continue
        if isinstance(entry, Mapping) and "channelwise" in entry:  # names as well
            inner = [other.removeprefix(scope) for other in entry["channelwise"]]
            entry = {**entry, "channelwise": inner}
        entries[name[len(scope) :]] = entry
    return entries


def _check_scopes(cfg: CfgNode) -> None:
    """An entry that no builder would apply must not pass in silence."""
    scopes = [BACKBONE]
    if cfg.MODEL.RPN.HEAD_NAME == "SparseRPNHead":
        scopes.append(RPN_HEAD)
    for name in cfg.MODEL.SPARSE_FUSION.PLAN:
        if not name.startswith(tuple(scopes)):
            raise InputError(
                f"MODEL.SPARSE_FUSION.PLAN: {name!r} is not under {' or '.join(scopes)}; "
                "an RPN head needs MODEL.RPN.HEAD_NAME SparseRPNHead, "
                "fully connected layers have MODEL.ROI_BOX_HEAD.FC_RANKS"
            )
