"""detectron2's LazyConfig files (.py), read as the config that every tool takes."""

from __future__ import annotations

import builtins
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

from detectron2.config import CfgNode, LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from ..errors import InputError
from ..modeling.lazy import LazyCfgNode, compact_node

# Keys that a LazyConfig has no place for, or that every tool sets; all else is in its nodes.
SETTABLE = re.compile(
    r"MODEL\.(WEIGHTS|DEVICE)|DATASETS\..*|OUTPUT_DIR|DATALOADER\.NUM_WORKERS|SEED"
    r"|INPUT\.(MIN|MAX)_SIZE_TEST|TEST\.KEYPOINT_OKS_SIGMAS"
)
# Of a key here, its places in the nodes; the first that is there counts.
PLACES = {
    "MODEL.WEIGHTS": ["train.init_checkpoint"],
    "MODEL.DEVICE": ["train.device"],
    "MODEL.PIXEL_MEAN": ["model.pixel_mean"],
    "MODEL.PIXEL_STD": ["model.pixel_std"],
    "MODEL.ROI_HEADS.NUM_CLASSES": ["model.roi_heads.num_classes", "model.num_classes"],
    "MODEL.RETINANET.NUM_CLASSES": ["model.num_classes"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": ["model.sem_seg_head.num_classes"],
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": [
        "model.roi_heads.box_predictor.test_score_thresh",
        "model.test_score_thresh",
    ],
    "MODEL.RETINANET.SCORE_THRESH_TEST": ["model.test_score_thresh"],
    "TEST.DETECTIONS_PER_IMAGE": [
        "model.roi_heads.box_predictor.test_topk_per_image",
        "model.max_detections_per_image",
    ],
    "TEST.KEYPOINT_OKS_SIGMAS": ["dataloader.evaluator.kpt_oks_sigmas"],
    "INPUT.FORMAT": ["dataloader.test.mapper.image_format", "model.input_format"],
    "DATALOADER.NUM_WORKERS": ["dataloader.test.num_workers"],
    "OUTPUT_DIR": ["train.output_dir"],
}


def is_lazy(path: str) -> bool:
    """Whether a config file is a LazyConfig: a Python file, which is run to read it."""
    return path.endswith(".py")


def read_lazy(path: str, keys: CfgNode, opts: Sequence[str]) -> tuple[LazyCfgNode, list[str]]:
    """Run a LazyConfig file, and tell of it what the keys of a yaml config tell.

    Args:
        keys: all, at their defaults.
        opts: overrides of the file's nodes (``model.num_classes=3``) and of keys (KEY VALUE).

    Returns:
        the config, and the overrides of keys, still to be merged

    Raises:
        InputError: the file fails or has no model, or an override is of none of its nodes, or of a
            key that is set in the nodes.
    """
    overrides, pairs = _split(path, opts)
    nodes = load_nodes(path, overrides)
    values = {}
    for key, places in PLACES.items():
        found = (_select(path, nodes, place) for place in places)
        values[key] = next((value for value in found if value is not None), None)
    values["MODEL.MASK_ON"] = _select(path, nodes, "model.roi_heads.mask_head") is not None
    values["MODEL.KEYPOINT_ON"] = _select(path, nodes, "model.roi_heads.keypoint_head") is not None
    values.update(_test_size(path, nodes))
    for key, split in (("DATASETS.TRAIN", "train"), ("DATASETS.TEST", "test")):
        names = _select(path, nodes, f"dataloader.{split}.dataset.names")
        values[key] = (names,) if isinstance(names, str) else tuple(names or ())
    known = [part for key, value in values.items() if value is not None for part in (key, value)]
    try:
        keys.merge_from_list(known)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    return LazyCfgNode.of(keys, os.path.abspath(path), overrides, nodes), pairs


def load_nodes(path: str, overrides: Sequence[str]) -> DictConfig:
    """Run a LazyConfig file, and override some of its nodes.

    Raises:
        InputError: see :func:`read_lazy`.
    """
    real_import = builtins.__import__
    try:
        nodes = LazyConfig.load(path)
    except InputError:
        raise
    except Exception as error:  # it is code, which may raise anything
        raise InputError(f"{path}: {type(error).__name__}: {_first_line(error)}") from error
    finally:
        builtins.__import__ = real_import  # which detectron2 leaves patched after an error
    try:
        nodes = LazyConfig.apply_overrides(nodes, list(overrides))
    except Exception as error:  # of hydra and omegaconf
        raise InputError(f"{' '.join(overrides)}: {_first_line(error)}") from error
    model = nodes.get("model")
    if not isinstance(model, DictConfig) or "_target_" not in model:
        found = f"but {', '.join(nodes)}" if nodes else "nor anything else"
        raise InputError(
            f"{path}: no model = LazyCall(...)(...) in it, {found}; name the LazyConfig of a model"
        )
    return nodes


def _split(path: str, opts: Sequence[str]) -> tuple[list[str], list[str]]:
    overrides, pairs, rest = [], [], list(opts)
    while rest:
        first = rest.pop(0)
        if "=" in first:
            overrides.append(first)
        elif not rest:
            raise InputError(f"config overrides are node=value, or pairs KEY VALUE: {first}")
        elif not SETTABLE.fullmatch(first):
            raise InputError(
                f"{first}: not a key that a LazyConfig leaves open; what is in {path} is set as "
                "node=value, such as model.roi_heads.num_classes=3"
            )
        else:
            pairs += [first, rest.pop(0)]
    return overrides, pairs


def _select(path: str, nodes: DictConfig, place: str) -> Any:
    """What stands there, as plain Python; None if nothing does."""
    try:
        value = OmegaConf.select(nodes, place)
    except InterpolationResolutionError as error:
        raise InputError(f"{path}: {place}: {_first_line(error)}") from error
    except OmegaConfBaseException:  # it leads through a list, as that of several evaluators
        return None
    return list(value) if isinstance(value, ListConfig) else value


def _test_size(path: str, nodes: DictConfig) -> dict[str, int]:
    steps = _select(path, nodes, "dataloader.test.mapper.augmentations")
    if steps is None:
        return {}
    targets = [step["_target_"] for step in steps]
    names = [str(getattr(target, "__name__", target)) for target in targets]
    if [name.rpartition(".")[-1] for name in names] != ["ResizeShortestEdge"]:
        raise InputError(
            f"{path}: dataloader.test.mapper.augmentations are {', '.join(names) or 'none'}; "
            "expected one ResizeShortestEdge, which these tools do"
        )
    edge = steps[0].short_edge_length
    return {
        "INPUT.MIN_SIZE_TEST": edge if isinstance(edge, int) else min(edge),
        "INPUT.MAX_SIZE_TEST": steps[0].get("max_size", sys.maxsize),
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or "it fails"


def write_compact(cfg: LazyCfgNode, plan: Mapping[str, Mapping[str, Any]], folder: str) -> None:
    """Write ``config.py`` beside the ``model.pth`` of the compact model: a LazyConfig as well.

    Raises:
        InputError: ``cfg`` is of a compact model already.
    """
    compact_node(cfg.nodes.model, plan)
    text = TEMPLATE.format(
        path=cfg.path, overrides=cfg.overrides, plan=pformat(plan, sort_dicts=False, width=100)
    )
    with open(os.path.join(folder, "config.py"), "w", encoding="utf-8") as file:
        file.write(text)


TEMPLATE = '''"""The detector of {path}, compressed: a LazyConfig.

To read it runs both files. sparsedet's tools take it, and detectron2's lazyconfig_train_net.py.
"""

import os

from sparsedet.detection.lazy import compact_nodes

_PLAN = {plan}
_WEIGHTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model.pth")

globals().update(compact_nodes({path!r}, {overrides!r}, _PLAN, _WEIGHTS))
'''


def compact_nodes(
    path: str, overrides: Sequence[str], plan: Mapping[str, Mapping[str, Any]], weights: str
) -> dict[str, Any]:
    """The nodes of a dense LazyConfig file, by name, with the model that a plan makes of it.

    It starts from ``weights``, and trains into a folder ``finetune`` beside them.

    Raises:
        InputError: the file is not there any more, or see :func:`read_lazy`.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file, of which the model was compressed; put it back")
    nodes = load_nodes(path, overrides)
    nodes.model = compact_node(nodes.model, plan)
    if "train" in nodes:
        folder = os.path.join(os.path.dirname(weights), "finetune")
        nodes.train.update(init_checkpoint=weights, output_dir=folder)
    return {name: nodes[name] for name in nodes}
