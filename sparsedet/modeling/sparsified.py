"""Any detectron2 model, compact: built as the config says, and then changed by the plan in it."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from ..compress import resolve_plan, sparsify_
from ..errors import InputError
from .lazy import LazyCfgNode
from .memory_format import run_trunks_in_channels_last_

NAME = "SparsifiedModel"


@META_ARCH_REGISTRY.register()
def SparsifiedModel(cfg: CfgNode) -> nn.Module:
    """The model of :func:`dense_config`, with fresh compact layers where ``PLAN`` names some.

    It is registered as a meta architecture; the model is of the dense one's class, and its
    parameters have the same names, except inside the compact layers.

    Raises:
        InputError: the plan does not fit the model.
    """
    dense = dense_config(cfg)
    model = META_ARCH_REGISTRY.get(dense.MODEL.META_ARCHITECTURE)(dense)
    plan = resolve_plan(model, cfg.MODEL.SPARSE_FUSION.PLAN)
    return run_trunks_in_channels_last_(sparsify_(model, plan, project=False))


def dense_config(cfg: CfgNode) -> CfgNode:
    """The config of the dense model that a sparsified one was; any other config as it is."""
    if cfg.MODEL.META_ARCHITECTURE != NAME:
        return cfg
    dense = cfg.clone()
    dense.defrost()
    dense.MODEL.META_ARCHITECTURE = cfg.MODEL.SPARSE_FUSION.META_ARCHITECTURE
    dense.MODEL.SPARSE_FUSION.PLAN = CfgNode(new_allowed=True)
    return dense


def meta_architecture(cfg: CfgNode) -> str:
    """The name of the class that the model is of, compact or not."""
    if isinstance(cfg, LazyCfgNode):
        return cfg.model_class()
    return dense_config(cfg).MODEL.META_ARCHITECTURE


def sparsified_config(cfg: CfgNode, entries: Mapping[str, Mapping]) -> CfgNode:
    """The config of the model that a dense one becomes by a plan in its readable form.

    Raises:
        InputError: ``cfg`` plans some compact layers already.
    """
    if cfg.MODEL.META_ARCHITECTURE == NAME or cfg.MODEL.SPARSE_FUSION.PLAN:
        raise InputError(
            "MODEL.SPARSE_FUSION.PLAN: the model is compressed already; start from the dense one"
        )
    compact = cfg.clone()
    compact.defrost()
    compact.MODEL.META_ARCHITECTURE = NAME
    fusion = compact.MODEL.SPARSE_FUSION
    fusion.META_ARCHITECTURE = cfg.MODEL.META_ARCHITECTURE
    fusion.PLAN = CfgNode({k: dict(v) for k, v in entries.items()}, new_allowed=True)
    return compact
