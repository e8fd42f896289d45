"""A trained detector in memory."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint import SparseDetCheckpointer
from ..errors import InputError
from .build import building
from .classes import check_test_classes
from .config import check_input_format, load_config


def load_model(
    config: str | os.PathLike | CfgNode, weights: str | os.PathLike | None = None
) -> nn.Module:
    """The detectron2 model of a config with its weights, in eval mode; ``model.cfg`` is the config.

    ``model.class_names`` are the names of its classes, where the checkpoint says them.

    Args:
        config: a yaml file, or what :func:`sparsedet.load_config` gives.
        weights: a checkpoint; by default MODEL.WEIGHTS of the config.

    Raises:
        InputError: the config is not one or describes no model, or the weights are not there or do
            not fit it, or are for other classes than those of its DATASETS.TEST.
    """
    if isinstance(config, (str, os.PathLike)):
        cfg = load_config(config)
    elif isinstance(config, CfgNode):
        cfg = config.clone()
        check_input_format(cfg)
    else:
        raise InputError(f"a config is a yaml file or a CfgNode, not {type(config).__name__}")
    if weights is not None:
        cfg.defrost()
        cfg.MODEL.WEIGHTS = os.fspath(weights)
    with building("the model"):
        model = build_model(cfg)
    SparseDetCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS)
    try:
        check_test_classes(cfg, model)
    except InputError as error:
        raise InputError(f"{cfg.MODEL.WEIGHTS}: {error}") from None
    model.cfg = cfg
    return model.eval()


def model_config(model: nn.Module) -> CfgNode:
    """The config that a model of :func:`load_model` carries.

    Raises:
        InputError: it carries none, or is no model.
    """
    cfg = getattr(model, "cfg", None)
    if not isinstance(model, nn.Module) or not isinstance(cfg, CfgNode):
        raise InputError(
            f"{type(model).__name__}: not a model that carries its config; "
            "sparsedet.load_model(config, weights) gives one"
        )
    return cfg
