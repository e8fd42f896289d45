"""Where a detector's time goes, stage by stage, and how little it could be on a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ..hooks import attached
from ..layers import SparseFusionConv2d
from ..timing import now
from .counting import counting, random_proposals
from .machine import Machine

STAGES = (
    *("preprocess", "backbone", "rpn_head", "proposals"),
    *("roi_pooler", "box_head", "postprocess"),
)

# The modules of a GeneralizedRCNN that make up a stage, by their names in its two kinds of heads.
_MODULES = {
    "backbone": "backbone",
    "proposal_generator.rpn_head": "rpn_head",
    "proposal_generator": "proposals",
    "roi_heads.box_pooler": "roi_pooler",
    "roi_heads.pooler": "roi_pooler",
    "roi_heads.box_head": "box_head",
    "roi_heads.res5": "box_head",
    "roi_heads.box_predictor": "box_head",
}


def fix_proposals(model: nn.Module, count: int, height: int, width: int) -> None:
    """Give the ROI heads the same ``count`` random boxes in every image of that size, from now on.

    The proposal generator runs as ever, but what it returns is replaced by a forward hook: so the
    number is exact whatever the weights and images, as it is for :func:`count_multiply_adds`.
    """
    fixed = random_proposals(count, height, width).to(model.device)
    model.proposal_generator.register_forward_hook(
        lambda module, args, output: ([fixed for _ in output[0]], output[1])
    )


def time_stages(model: nn.Module, call: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of each of ``STAGES`` in one ``call()``, which runs ``model`` once.

    "proposals" is what the proposal generator does after its head (decoding, sorting, suppression);
    "preprocess" is all that comes before the backbone, and "postprocess" what is left over.
    """
    spent: Counter = Counter()
    started = {}

    def enter(module, args):
        started[module] = now()

    def leave(module, args, output):
        spent[stages[module]] += now() - started[module]

    stages = _stage_modules(model)
    with attached(_around(stages, enter, leave)):
        begin = now()
        call()
        total = now() - begin
    spent["preprocess"] = started[model.backbone] - begin
    spent["proposals"] -= spent["rpn_head"]  # which runs inside
    spent["postprocess"] = total - sum(spent.values())
    return {stage: 1000 * spent[stage] for stage in STAGES}


def _around(
    modules: Iterable[nn.Module], enter: Callable, leave: Callable
) -> Iterator[RemovableHandle]:
    """Register ``enter`` before each module runs and ``leave`` after."""
    for module in modules:
        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)


def _stage_modules(model: nn.Module) -> dict[nn.Module, str]:
    return {m: _MODULES[name] for name, m in model.named_modules() if name in _MODULES}


def stage_bounds(
    model: nn.Module, call: Callable[[], Any], machine: Machine, value_bytes: int = 4
) -> dict[str, float]:
    """Milliseconds below which no program on ``machine`` can take the stages that compute.

    A convolution or fully connected layer takes at least the time of its multiply-adds at the
    machine's best rate, and that of moving its input, weights and output once at its bandwidth; a
    sparse fusion counts as one layer. What lies between the layers counts as nothing.

    Args:
        call: runs ``model`` once.
        value_bytes: of one number.
    """
    bounds: Counter = Counter()
    running = [""]
    counted = {}

    def begin(layer, args):
        counted[layer] = count()

    def end(layer, args, output):
        values = args[0].numel() + output.numel() + sum(p.numel() for p in layer.parameters())
        seconds = max(
            (count() - counted[layer]) / machine.multiply_adds_per_second,
            values * value_bytes / machine.bytes_per_second,
        )
        bounds[running[-1]] += 1000 * seconds

    def enter(module, args):
        running.append(stages[module])

    def leave(module, args, output):
        running.pop()

    stages = _stage_modules(model)
    hooks = chain(_around(stages, enter, leave), _around(_layers(model), begin, end))
    with attached(hooks), counting() as count:
        call()
    return {stage: bounds[stage] for stage in STAGES if bounds[stage]}


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that multiply; those inside a sparse fusion are part of it."""
    if isinstance(module, (SparseFusionConv2d, nn.Conv2d, nn.Linear)):
        yield module
    else:
        for child in module.children():
            yield from _layers(child)
