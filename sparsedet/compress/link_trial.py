"""Whether a model does without some channels what it does when their reader ignores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .candidates import dense_layers
from .narrow import keep_channels, keep_outputs, read_fewer
from .plan import channels_of
from .surgery import replace_modules
from .task import Task
from .watched_run import WatchedRun

if TYPE_CHECKING:
    from .links import Link

TOLERANCE = 1e-3
"""Of the largest number: a convolution of fewer channels may add in another order."""


@torch.no_grad()
def trial(model: nn.Module, links: Mapping[str, Link], task: Task) -> str:
    """Try links on the first batch.

    Half of the outputs of all these layers become noise, and then the other half, while the readers
    get what they got before: that must change nothing, to the last bit, but the same half of what
    comes to the readers. Then half of the channels are left out, and each layer must see what it
    sees where the readers only ignore them.

    Returns:
        why that is not so; "" where it is
    """
    layers = dense_layers(model)
    halves = []
    for first in range(2):
        kept = {name: torch.arange(first, channels_of(layers[name])[1], 2) for name in links}
        columns = {
            link.reader: input_columns(layers[name], layers[link.reader], kept[name])
            for name, link in links.items()
        }
        halves.append((kept, columns))
    before = WatchedRun(layers, whole=halves[0][1])
    before.run(model, task)
    for kept, columns in halves:
        noisy = WatchedRun(layers, whole=columns, given=before.whole, kept=kept)
        noisy.run(model, task)
        if before.sums != noisy.sums or not _same(before.seen, noisy.seen):
            return "something else than one layer reads it"
        if not _same(before.inputs(columns), noisy.inputs(columns)):
            return "it is not read channel by channel"

    kept, columns = halves[0]
    silent = WatchedRun(layers, columns=columns)
    silent.run(model, task)
    narrow = _narrow(model, links, layers, kept, columns)
    replace_modules(model, narrow)
    try:
        fewer = WatchedRun({name: narrow.get(layer, layer) for name, layer in layers.items()})
        fewer.run(model, task)
    except Exception as error:  # whatever a model makes of channels that are not there
        return f"the model does not run with fewer of its channels: {str(error).splitlines()[0]}"
    finally:
        replace_modules(model, {new: old for old, new in narrow.items()})
    for (name, call), x in silent.seen.items():
        if name in columns:
            x = x[:, columns[name]]
        if name in layers and not _close(x, fewer.seen.get((name, call))):
            return "it is not read channel by channel"
    return ""


def input_columns(producer: nn.Module, reader: nn.Module, kept: torch.Tensor) -> torch.Tensor:
    """The input channels of the reader that some channels of the producer become.

    Flattened, each channel becomes as many features as it has positions.
    """
    each = channels_of(reader)[0] // channels_of(producer)[1]
    return (kept[:, None] * each + torch.arange(each)).flatten()


def _narrow(
    model: nn.Module,
    links: Mapping[str, Link],
    layers: Mapping[str, nn.Module],
    kept: Mapping[str, torch.Tensor],
    columns: Mapping[str, torch.Tensor],
) -> dict[nn.Module, nn.Module]:
    narrow = {}
    for name in {**links, **columns}:
        layer = layers[name]
        if name in columns:
            layer = read_fewer(layer, layer.weight[:, columns[name].to(layer.weight.device)])
        if name in links:
            layer = keep_outputs(layer, kept[name])
        narrow[layers[name]] = layer
    for name, link in links.items():
        for inner in link.channelwise:
            module = model.get_submodule(inner)
            narrow[module] = keep_channels(module, kept[name])
    return narrow


def _same(some: Mapping[Any, torch.Tensor], others: Mapping[Any, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(x, others[k]) for k, x in some.items())


def _close(x: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or x.shape != other.shape:
        return False
    if not x.numel():
        return True
    return bool((x - other).abs().max() <= TOLERANCE * x.abs().max() + 1e-12)
