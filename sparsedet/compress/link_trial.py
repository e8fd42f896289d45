"""Whether a model does without some channels what it does when their reader ignores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..hooks import attached
from .candidates import dense_layers
from .narrow import keep_channels, keep_outputs, read_fewer
from .observe import first_argument, tensors_in
from .plan import channels_of
from .surgery import replace_modules
from .task import Task

if TYPE_CHECKING:
    from .links import Link

ROWS = 4096
"""Positions that are compared in each input of a layer."""

TOLERANCE = 1e-3
"""Of the largest number: a convolution of fewer channels may add in another order."""

Seen = dict[tuple[str, int], torch.Tensor]
"""Of a module and its call, a sample of what came to it or, of a ``task.fixed`` one, from it."""


@torch.no_grad()
def trial(model: nn.Module, links: Mapping[str, Link], task: Task) -> str:
    """Leave out half of the channels of each link, on the first batch.

    Three runs: readers ignore these channels; they ignore them and the channels are noise, which
    must change nothing anywhere, to the last bit; and the channels are gone, whereupon every layer
    must see what it saw.

    Returns:
        why that is not so; "" where it is
    """
    layers = dense_layers(model)
    kept = {name: torch.arange(channels_of(layers[name])[1])[::2] for name in links}
    columns = {
        link.reader: input_columns(layers[name], layers[link.reader], kept[name])
        for name, link in links.items()
    }
    silent = _run(model, layers, task, columns)
    noisy = _run(model, layers, task, columns, {layers[name]: kept[name] for name in links})
    changed = [
        key for key in silent if key not in noisy or not torch.equal(silent[key], noisy[key])
    ]
    if changed or len(noisy) > len(silent):
        return "something else than one layer reads it"
    narrow = _narrow(model, links, layers, kept, columns)
    replace_modules(model, narrow)
    try:
        names = {name: narrow.get(layer, layer) for name, layer in layers.items()}
        fewer = _run(model, names, task, {})
    except Exception as error:  # whatever a model makes of channels that are not there
        return f"the model does not run with fewer of its channels: {str(error).splitlines()[0]}"
    finally:
        replace_modules(model, {new: old for old, new in narrow.items()})
    for (name, call), x in silent.items():
        if name in columns:
            x = x[:, columns[name]]
        if name in layers and not _close(x, fewer.get((name, call))):
            return "it is not read channel by channel"
    return ""


def input_columns(producer: nn.Module, reader: nn.Module, kept: torch.Tensor) -> torch.Tensor:
    """The input channels of the reader that some channels of the producer become.

    Flattened, each channel becomes as many features as it has positions.
    """
    each = channels_of(reader)[0] // channels_of(producer)[1]
    return (kept[:, None] * each + torch.arange(each)).flatten()


def _run(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    task: Task,
    columns: Mapping[str, torch.Tensor],
    noisy: Mapping[nn.Module, torch.Tensor] | None = None,
) -> Seen:
    """What every layer sees, and what the model and its fixed modules give.

    Args:
        columns: for readers by name, the input channels that they do not ignore.
        noisy: for layers, the outputs that are not replaced by noise.
    """
    seen: Seen = {}
    calls: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(0)

    def keep(name: str, x: torch.Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
        seen[name, calls[name]] = rows[:: -(-len(rows) // ROWS) or 1].clone()
        calls[name] += 1

    def look(name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        x = first_argument(args, kwargs)
        rows = _rows(module, x)
        if name in columns:
            ignored = torch.ones(rows.shape[-1], dtype=torch.bool, device=x.device)
            ignored[columns[name]] = False
            x = x.clone()
            rows = _rows(module, x)
            rows[..., ignored] = 0
        keep(name, rows)
        if name in columns:
            return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): x})
        return None

    def disturb(kept: torch.Tensor, module: nn.Module, args: Any, y: torch.Tensor) -> torch.Tensor:
        y = y.clone()
        rows = _rows(module, y)
        noise = torch.randn(rows.shape, generator=generator).to(y) * (1 + y.std(correction=0))
        noise[..., kept] = rows[..., kept]
        rows.copy_(noise)
        return y

    def give(name: str, module: nn.Module, args: Any, y: Any) -> None:
        for x in tensors_in(y):
            keep(name, x)

    with attached(_hooks(model, layers, task, look, disturb, give, noisy or {})):
        give("", model, (), task.forward(model, task.batches[0]))
    return seen


def _hooks(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    task: Task,
    look: Callable,
    disturb: Callable,
    give: Callable,
    noisy: Mapping[nn.Module, torch.Tensor],
) -> Iterator[Any]:
    for name, layer in layers.items():
        yield layer.register_forward_pre_hook(partial(look, name), with_kwargs=True)
    for layer, kept in noisy.items():
        yield layer.register_forward_hook(partial(disturb, kept))
    for number, step in enumerate(task.fixed(model)):
        # Before the task's own hook, which gives what it recorded instead.
        yield step.register_forward_hook(partial(give, f"fixed {number}"))


def _rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A view of an input or output with the channels last."""
    return x if isinstance(layer, nn.Linear) else x.movedim(-3, -1)


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


def _equal(x: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(x, other)


def _close(x: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or x.shape != other.shape:
        return False
    if not x.numel():
        return True
    return bool((x - other).abs().max() <= TOLERANCE * x.abs().max() + 1e-12)
