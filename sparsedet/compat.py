"""Private and patched calls of other libraries, all of them, with the version each was seen on.

What subclasses of detectron2's classes override stands with the subclass and is listed here, for
the next who upgrades: ``DetectionCheckpointer._load_file``, ``_load_model``,
``_convert_ndarray_to_tensor`` and ``_parsed_url_during_load`` (checkpoint/checkpointer.py; fvcore
0.1.5, detectron2 0.6 and main: if renamed, checkpoints would load unchecked, and the tests of
refusals fail), ``SimpleTrainer._data_loader_iter`` and ``_write_metrics`` (training/amp.py;
detectron2 0.6 and main: if renamed, bfloat16 training on CPUs fails at its first step),
``DefaultTrainer._trainer`` (training/trainer.py; detectron2 0.6 and main: if renamed, training
fails at its start).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

# One number or two, as two. torch 2.6 to 2.14.
from torch.nn.modules.utils import _pair as pair

# A mode that sees every operation. torch 2.6 to 2.14; without it Replay cannot tell numbers that
# are not there from others, and would have to run every model in full.
from torch.utils._python_dispatch import TorchDispatchMode

# Walks nested lists, tuples and dicts. torch 2.6 to 2.14; optree has the same under public names.
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "TorchDispatchMode",
    "add_convolution_",
    "become",
    "convolution",
    "die_with_parent",
    "distributed_worker",
    "has_onednn",
    "pack_convolution",
    "pair",
    "precise_bn_loader",
    "proposal_recall",
    "shape_as_tensor",
    "tree_leaves",
    "tree_map",
    "with_globals",
    "with_old_numpy_names",
]


def shape_as_tensor(x: torch.Tensor) -> torch.Tensor:
    """The shape as the tracer follows it; ``x.shape`` would become a constant in ONNX.

    torch 2.6 to 2.14. If it goes, export fails at tracing.
    """
    return torch._shape_as_tensor(x)


def has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolutions are there, on this processor and in this type.

    torch 2.6 to 2.14, whose own compiler calls them. If they go, optimize_for_inference leaves
    convolutions as they are.
    """
    ops = torch.ops.mkldnn
    if not hasattr(ops, "_convolution_pointwise_"):
        return False
    if dtype == torch.bfloat16:
        return ops._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def pack_convolution(weight: torch.Tensor, geometry: tuple, size: list[int]) -> torch.Tensor:
    """The weight in oneDNN's own layout, for inputs of about ``size``; see :func:`has_onednn`.

    Args:
        geometry: padding, stride, dilation, groups.
    """
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, size)


def convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: tuple, relu: bool
) -> torch.Tensor:
    """Convolution, bias and ReLU in one pass; see :func:`has_onednn`."""
    attribute = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *geometry, attribute, [], "")


def add_convolution_(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: tuple,
) -> None:
    """Add the convolution of ``x`` to ``y``, which may be a slice of channels."""
    torch.ops.mkldnn._convolution_pointwise_(
        y, x, weight, bias, *geometry, "add", 1.0, None, [], None
    )


def become(module: nn.Module, kind: type) -> None:
    """Let a module run as one of a subclass of its class, all its state as it is."""
    module.__class__ = kind


def distributed_worker(launcher: Any, *args: Any) -> None:
    """A process that somebody else started joins the others and calls its function.

    detectron2 0.6 and main, whose own launcher starts processes by it. If it goes, training under
    torchrun fails at its start.

    Args:
        launcher: the module ``detectron2.engine.launch``.
        args: its number on this machine, the function, processes in all and per machine, the number
            of the machine, the URL, the function's arguments.
    """
    launcher._distributed_worker(*args)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however that ends; on Linux alone.

    torch 2.6 to 2.14, which sets SIGINT, that nohup and shells in the background ignore. If it
    goes, processes of a killed training go on.
    """
    from torch.multiprocessing import _prctl_pr_set_pdeathsig

    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


def proposal_recall(evaluation: Any, found: list[dict], truth: Any, area: str, limit: int) -> float:
    """The share of objects that proposals cover, a mean over IoU; detectron2 0.6 and main.

    If it goes, models that only propose boxes cannot be evaluated.

    Args:
        evaluation: the module ``detectron2.evaluation.coco_evaluation``.
        found: image_id and proposals of each image.
        truth: pycocotools' data set.
        area: of the objects: all, small, medium or large.
        limit: the most proposals of an image that count.
    """
    stats = evaluation._evaluate_box_proposals(found, truth, area=area, limit=limit)
    return stats["ar"].item()


def precise_bn_loader(hook: Any) -> Any:
    """The training loader that a PreciseBN hook draws on; detectron2 0.6 and main.

    If it goes, a training with TEST.PRECISE_BN fails at its start.
    """
    return hook._data_loader


def with_old_numpy_names(module: ModuleType) -> None:
    """Let a module use ``np.float``, which NumPy 1.24 dropped; it alone sees it.

    lvis 0.5.3, whose ``lvis.eval`` counts by it. If it goes, evaluation on LVIS fails at its end.
    """
    if not hasattr(module.np, "float"):
        module.np = SimpleNamespace(**vars(module.np), float=float)


def with_globals(function: Callable, **names: Any) -> Callable:
    """A copy of a function that finds something else under some global names.

    For detectron2's ``DatasetMapper.__call__``, 0.6 and main, whose module knows
    ``detection_utils`` as ``utils``. If that changes, its images are read by detectron2's own
    ``read_image``, and the tests of 16-bit and damaged images in training fail.
    """
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
