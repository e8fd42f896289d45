"""Models of detectron2's LazyConfig: a Python file that describes calls, dense or compact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..compress import resolve_plan, sparsify_
from ..errors import InputError
from .memory_format import run_trunks_in_channels_last_

LAZY = "LazyModel"


class LazyCfgNode(CfgNode):
    """The keys that this package reads, as a LazyConfig has them, beside the LazyConfig itself.

    That is not among the keys, so that no yaml file can name what is to be called.

    Attributes:
        path: of the Python file.
        overrides: of its nodes, as ``model.num_classes=3``.
        nodes: all of it, with its overrides.
    """

    path: str
    overrides: list[str]
    nodes: DictConfig

    @classmethod
    def of(cls, keys: CfgNode, path: str, overrides: list[str], nodes: DictConfig) -> LazyCfgNode:
        cfg = cls()
        cfg.update(keys)
        cfg.MODEL.META_ARCHITECTURE = LAZY
        cfg.__dict__.update(path=path, overrides=overrides, nodes=nodes)
        return cfg

    def model_class(self) -> str:
        """The name of the class of the model, dense or compact."""
        node = self.nodes.model
        target = node.get("dense_target", node["_target_"])
        return str(getattr(target, "__name__", target)).rpartition(".")[-1]


@META_ARCH_REGISTRY.register()
def LazyModel(cfg: CfgNode) -> nn.Module:
    """The model that the nodes of a LazyConfig describe.

    Raises:
        InputError: a config that was not read from a LazyConfig.
    """
    if not isinstance(cfg, LazyCfgNode):
        raise InputError(
            "MODEL.META_ARCHITECTURE: LazyModel is built from a LazyConfig; name its .py file"
        )
    return instantiate(cfg.nodes.model)


def compact_node(model: DictConfig, plan: Mapping[str, Mapping[str, Any]]) -> DictConfig:
    """The node of the compact model that the one of a dense node becomes.

    All else in it stays where it was, so that it is overridden, and referred to, as before.

    Raises:
        InputError: it is of a compact model already.
    """
    if "dense_target" in model:
        raise InputError("the model is compressed already; start from the dense one")
    compact = model.copy()
    compact.update(dense_target=model["_target_"], _target_=compact_model)
    compact.plan = {name: dict(entry) for name, entry in plan.items()}
    return compact


def compact_model(
    *, dense_target: Any, plan: Mapping[str, Mapping[str, Any]], **arguments: Any
) -> nn.Module:
    """The model ``dense_target(**arguments)`` with fresh compact layers where the plan names some.

    Raises:
        InputError: the plan does not fit the model.
    """
    model = instantiate({"_target_": dense_target, **arguments})
    entries = OmegaConf.to_container(plan) if OmegaConf.is_config(plan) else plan
    sparsify_(model, resolve_plan(model, entries), project=False)
    return run_trunks_in_channels_last_(model)
