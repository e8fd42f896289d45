"""The verb ``compress_``: a model, what to calibrate it on, and what is asked of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from .compress import Request, Result, Task
from .compress import compress_ as compress_by_request
from .compress.engine import PYTORCH
from .compress.profile import SEARCHED_PATTERNS
from .compress.torchvision_task import TorchvisionDetectionTask, is_torchvision_detector
from .errors import InputError

if TYPE_CHECKING:
    from .detection.task import DetectionTask


def compress_(
    model: nn.Module,
    *,
    images: str | os.PathLike | None = None,
    num_images: int = 100,
    min_size: int | None = None,
    batches: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    task: Task | None = None,
    plan: str | os.PathLike | Mapping[str, Any] | None = None,
    params: float | None = None,
    flops: float | None = None,
    latency: float | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    patterns: Sequence[str] = SEARCHED_PATTERNS,
    no_slower: bool = False,
    width: bool = False,
    calibrate: bool = True,
    engine: str = "eager",
    progress: bool = False,
) -> Result:
    """Replace layers of a trained model, in place, by compact ones that put out nearly the same.

    Nothing is trained, and no annotation is needed: each layer is fitted in closed form to what the
    dense one puts out on some inputs. ::

        model = sparsedet.load_model("dense/config.yaml", "dense/model_final.pth")
        result = sparsedet.compress_(model, images="photos", params=12.4, flops=3)
        print(result)
        result.save("compact")

    The same inputs give the same plan, unless it counts time (``latency``, ``no_slower``).

    Args:
        model: the dense one, of detectron2 or any ``nn.Module``.
        images: a folder or pattern of files, for a model of :func:`load_model`; by default, for
            such a model, those of DATASETS.TRAIN. ``num_images`` random ones are taken, with a
            shorter side of ``min_size``, by default INPUT.MIN_SIZE_TEST. Less calibrates sooner.
        batches: instead of images, what ``forward`` takes; lists of inputs for a detectron2 model.
        forward: runs the model on one batch; by default the batch is its one argument. It must make
            the same calls each time.
        task: instead of all that, an object that knows them; see :class:`Task`. For a detectron2
            model it is :class:`DetectionTask` by default, for a detector of torchvision
            :class:`TorchvisionDetectionTask`.
        plan: what each layer becomes: a ``plan.yaml``, or a mapping like it.
        params, flops, latency: instead of a plan, by which factors the model's parameters, its
            multiply-adds (one is one flop here) and its time on this machine are to shrink. All
            that are given are met; with a detectron2 model's config, at its INPUT.MIN_SIZE_TEST and
            with as many proposals as it has there, whatever the size of the calibration's images.
        include, exclude: shell-style patterns of the names of layers that targets may change. The
            layers that give the answers stay dense in any case.
        patterns: the sparse kernels among which targets choose, layer by layer.
        no_slower: let no layer become slower on this machine, as it is with ``latency``. Where the
            targets cannot be met otherwise the rule is dropped, and ``result.notes`` says so.
        width: targets may also leave out channels of a layer's output, where one other layer alone
            reads them; that one is fitted to do without.
        calibrate: False projects the weights alone, for comparison.
        engine: what runs the model and its layers where they are timed: "eager", which is PyTorch
            as it is, or, for a detectron2 model, what exported files run in: "onnxruntime",
            "openvino", "openvino:bf16".
        progress: show bars.

    Returns:
        what it did: print it, or save it.

    Raises:
        InputError: one line that says what cannot be used; the model is then as it was.
    """
    request = Request(
        plan=plan,
        params=params,
        flops=flops,
        latency=latency,
        include=include,
        exclude=exclude,
        patterns=patterns,
        no_slower=no_slower,
        width=width,
        calibrate=calibrate,
    )
    if not isinstance(model, nn.Module):
        raise InputError(
            f"compress_ takes a model in memory, not {type(model).__name__}: "
            "sparsedet.load_model(config, weights) gives one"
        )
    if task is None:
        task = choose_task(model, images, num_images, batches, forward, progress, min_size)
    elif not (images is None and batches is None and forward is None and min_size is None):
        raise InputError("a task has its own images: give either task, or images or batches")
    timed_in = PYTORCH
    if engine != "eager":
        from .exporting.engine import engine_of

        timed_in = engine_of(engine, model)
    return compress_by_request(model, task, request, engine=timed_in, progress=progress)


def choose_task(
    model: nn.Module,
    images: str | os.PathLike | None,
    num_images: int,
    batches: Iterable[Any] | None,
    forward: Callable[[nn.Module, Any], Any] | None,
    progress: bool,
    min_size: int | None = None,
) -> Task:
    """The task that suits a model: a detector's boxes are held fixed, any other just runs."""
    if images is not None and batches is not None:
        raise InputError("images and batches contradict: give one of them")
    if batches is not None and min_size is not None:
        raise InputError("min_size is for images, which are read: batches have their size")
    cfg = getattr(model, "cfg", None)
    if batches is not None:
        if forward is not None:
            return Task(batches, forward)
        if is_torchvision_detector(model):
            return TorchvisionDetectionTask(batches)
        if not is_detectron2(model):
            return Task(batches)
        return detectron2_task(model)(batches, cfg)
    if forward is not None:
        raise InputError("forward runs the model on batches: give batches as well")
    if not is_detectron2(model):
        raise InputError(f"{type(model).__name__} is not a detectron2 model: give it batches")
    if cfg is None:
        raise InputError(
            "the model carries no config that says how images are prepared: load it by "
            "sparsedet.load_model, or give batches"
        )
    from .detection.predictor import smallest_side

    folder = None if images is None else os.fspath(images)
    least = smallest_side(model)
    return detectron2_task(model).from_images(cfg, folder, num_images, progress, least, min_size)


def detectron2_task(model: nn.Module) -> type[DetectionTask]:
    """Of a detector, or of a classifier of images."""
    from .classification.task import ClassificationTask
    from .detection.task import DetectionTask
    from .modeling import ImageClassifier

    return ClassificationTask if isinstance(model, ImageClassifier) else DetectionTask


def is_detectron2(model: nn.Module) -> bool:
    """Whether the model is of a registered meta architecture of detectron2, or of load_model."""
    modeling = sys.modules.get("detectron2.modeling")
    if modeling is None:
        return False
    from .modeling import LazyCfgNode

    known = type(model) in dict(modeling.META_ARCH_REGISTRY).values()
    return known or isinstance(getattr(model, "cfg", None), LazyCfgNode)
