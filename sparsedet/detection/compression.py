"""A trained detector made compact, and the config with which it goes on."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint import SparseDetCheckpointer
from ..compress import (
    Cost,
    Metric,
    Plan,
    Profile,
    Report,
    measure_latency,
    output_metrics,
    plan_for_targets,
    plan_to_entries,
    profile_layers,
    sparsify_calibrated_,
    sparsify_counted_,
    time_layers,
)
from ..compress.plan import dense_layers
from ..compress.profile import PATTERNS
from ..errors import InputError
from ..modeling import sparsified_config
from ..reports.compression import write_report
from ..timing import compare_latency
from .calibration import CalibrationImage, run_detector

# The layers whose outputs are the answer. They stay dense, for they are small, and every error in
# them counts in full; and they learn to read what the compact layers give them.
PREDICTORS = ("cls_score", "bbox_pred", "objectness_logits", "anchor_deltas", "predictor")

PROFILED = 3
"""Planning looks at every third image: to compare options takes fewer than to fit one."""

DIFFERENTIATED = 6
"""Metrics come from every sixth image: there are hundreds of positions in each."""

FINETUNING = 4
"""A compressed model is fine-tuned for this share of the dense model's schedule."""

TIMED_IMAGES = 2

PLAN_HEADER = """\
# Layer by layer: the pattern and the rank of each of its sparse kernels, or one low rank. The rest
# is only for reading: numbers of weights before and after, and the error that the planner expected
# of the layer by itself. Edit the plan and give it to tools/compress.py --plan.
"""


def load_model(cfg: CfgNode) -> nn.Module:
    """The model of a config with its weights, in eval mode.

    Raises:
        InputError: the weights are not there, or do not fit the config.
    """
    model = build_model(cfg)
    SparseDetCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS)
    return model.eval()


def answer_metrics(model: nn.Module, images: Sequence[CalibrationImage]) -> dict[str, Metric]:
    """For each layer of a dense detector, what its errors do to the predicted classes and boxes."""
    layers = dense_layers(model)
    answers = {name: layers[name] for name in predictors(model)}
    inner = {name: layer for name, layer in layers.items() if name not in answers}
    some = images[::DIFFERENTIATED]
    return output_metrics(model, inner, answers.values(), some, run_detector, progress=True)


def predictors(model: nn.Module) -> list[str]:
    """Names of the dense layers that predict classes and boxes."""
    return [name for name in dense_layers(model) if name.endswith(PREDICTORS)]


def plan_compression(
    model: nn.Module,
    images: Sequence[CalibrationImage],
    metrics: Mapping[str, Metric],
    targets: Mapping[str, float],
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    patterns: Sequence[str] = PATTERNS,
) -> Plan:
    """What each layer is to become so that the whole detector meets the targets.

    No layer becomes slower on this machine, unless the targets cannot be met otherwise.

    Args:
        metrics: from :func:`answer_metrics`.
        targets: the factors by which "params", "flops" and "latency" are to shrink.
        include, exclude: shell-style patterns of layer names. The last layers, which predict
            classes and boxes, stay dense in any case.
        patterns: those among which to choose, layer by layer.

    Raises:
        InputError: a target out of reach, or a name that matches no layer.
    """
    exclude = [*exclude, *predictors(model)]
    some = images[::PROFILED]
    profile = profile_layers(
        model, some, run_detector, include, exclude, patterns, metrics, progress=True
    )
    latency = measure_latency(model, profile, some, run_detector, progress=True)
    costs = {"latency": latency}
    try:
        return plan_for_targets(_without_slower(profile, latency), targets, costs)
    except InputError:
        return plan_for_targets(profile, targets, costs)


def _without_slower(profile: Profile, latency: Cost) -> Profile:
    """The profile without the options that take longer than the dense layer."""
    layers = {}
    for name, layer in profile.layers.items():
        dense = latency.layer(name, None)
        options = [o for o in layer.options if latency.layer(name, o.plan) <= dense]
        layers[name] = replace(layer, options=options)
    return replace(profile, layers=layers)


def compressed_config(cfg: CfgNode, plan: Plan, folder: str) -> CfgNode:
    """The config of a model that was compressed, whose weights are ``folder/model.pth``.

    It trains for a quarter of the dense schedule, at a third of its rate, into ``folder/finetune``.
    """
    compact = sparsified_config(cfg, plan_to_entries(plan))
    compact.MODEL.WEIGHTS = os.path.join(folder, "model.pth")
    compact.OUTPUT_DIR = os.path.join(folder, "finetune")
    solver = compact.SOLVER
    solver.BASE_LR = cfg.SOLVER.BASE_LR / 3
    solver.MAX_ITER = max(1, cfg.SOLVER.MAX_ITER // FINETUNING)
    solver.STEPS = tuple(sorted({step // FINETUNING for step in cfg.SOLVER.STEPS}))
    solver.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, solver.MAX_ITER // 10)
    return compact


def compress(
    model: nn.Module,
    cfg: CfgNode,
    plan: Plan,
    images: Sequence[CalibrationImage],
    metrics: Mapping[str, Metric] | None,
    folder: str,
    output: str,
) -> tuple[Report, tuple[float, float]]:
    """Compress a dense model in place, and write all that is to be kept of it.

    Args:
        cfg: of the dense model.
        metrics: from :func:`answer_metrics`; None to project the weights alone, for comparison.
        folder: where to write config.yaml, model.pth, plan.yaml, report.md and layers.png.
        output: where that folder will be at last.

    Returns:
        what became of the layers, and milliseconds per image (before, after)

    Raises:
        InputError: the config plans compact layers already, or the plan does not fit the model.
    """
    compact = compressed_config(cfg, plan, output)
    entries = plan_to_entries(plan, model)
    dense = copy.deepcopy(model)
    times = time_layers(model, plan, images, run_detector, progress=True)
    if metrics is None:
        report = sparsify_counted_(model, plan, images, run_detector)
    else:
        refit = [name for name in predictors(model) if name not in plan]
        report = sparsify_calibrated_(
            model, plan, images, run_detector, metrics, refit, progress=True
        )
    timed = [image.inputs for image in images[:TIMED_IMAGES]]
    latency = compare_latency({"dense": dense, "sparse": model}, timed, rounds=5, warmup=1)
    total = latency["dense"].median, latency["sparse"].median

    with open(os.path.join(folder, "plan.yaml"), "w", encoding="utf-8") as file:
        file.write(PLAN_HEADER + yaml.safe_dump(entries, sort_keys=False, default_flow_style=None))
    with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as file:
        file.write(compact.dump())
    write_report(report, folder, times, total)
    SparseDetCheckpointer(model, folder).save("model")
    return report, total
