"""Whether a model does without some channels what it does when their reader ignores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    before = _Run(layers, whole=halves[0][1])
    before.run(model, task)
    for kept, columns in halves:
        noisy = _Run(layers, whole=columns, given=before.whole, kept=kept)
        noisy.run(model, task)
        if not _same(before.seen, noisy.seen):
            return "something else than one layer reads it"
        parts = [
            {
                call: _rows(layers[call[0]], x)[..., columns[call[0]]]
                for call, x in run.whole.items()
            }
            for run in (before, noisy)
        ]
        if not _same(*parts):
            return "it is not read channel by channel"

    kept, columns = halves[0]
    silent = _Run(layers, columns=columns)
    silent.run(model, task)
    narrow = _narrow(model, links, layers, kept, columns)
    replace_modules(model, narrow)
    try:
        fewer = _Run({name: narrow.get(layer, layer) for name, layer in layers.items()})
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


class _Run:
    """A run of a model, with what every layer sees, and what the model and its fixed modules give.

    Args:
        layers: by name.
        whole: names of those whose inputs are kept whole, in the attribute of that name.
        given: by name and call, inputs that layers get instead.
        kept: by name, the output channels of layers whose others become noise.
        columns: by name, the input channels that are not set to zero.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        whole: Collection[str] = (),
        given: Mapping[tuple[str, int], torch.Tensor] | None = None,
        kept: Mapping[str, torch.Tensor] | None = None,
        columns: Mapping[str, torch.Tensor] | None = None,
    ):
        self.layers, self.keep_whole = layers, whole
        self.given, self.kept, self.columns = given or {}, kept or {}, columns or {}
        self.whole: dict[tuple[str, int], torch.Tensor] = {}
        # Of the inputs, and of what is given, some rows.
        self.seen: dict[tuple[str, int], torch.Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.generator = torch.Generator().manual_seed(0)

    def run(self, model: nn.Module, task: Task) -> None:
        """On the first batch."""
        with attached(self._hooks(task.fixed(model))):
            self._give("", model, (), task.forward(model, task.batches[0]))

    def inputs(self, columns: Mapping[str, torch.Tensor]) -> dict[tuple[str, int], torch.Tensor]:
        """Some channels of what is kept whole."""
        return {
            (name, call): _rows(self.layers[name], x)[..., columns[name]]
            for (name, call), x in self.whole.items()
        }

    def _hooks(self, fixed: Sequence[nn.Module]) -> Iterator[Any]:
        for name, layer in self.layers.items():
            yield layer.register_forward_pre_hook(partial(self._look, name), with_kwargs=True)
        for name, kept in self.kept.items():
            yield self.layers[name].register_forward_hook(partial(self._disturb, kept))
        for number, step in enumerate(fixed):
            # Before the task's own hook, which gives what it recorded instead.
            yield step.register_forward_hook(partial(self._give, f"fixed {number}"))

    def _look(self, name: str, layer: nn.Module, args: Any, kwargs: Any) -> Any:
        x = first_argument(args, kwargs)
        call = name, self.calls[name]
        if name in self.keep_whole:
            self.whole[call] = x.clone()
        x = self.given.get(call, x)
        if name in self.columns:
            x, before = torch.zeros_like(x), x
            columns = self.columns[name]
            _rows(layer, x)[..., columns] = _rows(layer, before)[..., columns]
        self._keep(name, _rows(layer, x))
        x = x.clone()  # the layer may be followed by what works in place
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): x})

    def _disturb(
        self, kept: torch.Tensor, layer: nn.Module, args: Any, y: torch.Tensor
    ) -> torch.Tensor:
        noise = torch.randn(y.shape, generator=self.generator).to(y) * (1 + y.std(correction=0))
        _rows(layer, noise)[..., kept] = _rows(layer, y)[..., kept]
        return noise

    def _give(self, name: str, module: nn.Module, args: Any, y: Any) -> None:
        for x in tensors_in(y):
            self._keep(name, x)

    def _keep(self, name: str, x: torch.Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
        self.seen[name, self.calls[name]] = rows[:: -(-len(rows) // ROWS) or 1].clone()
        self.calls[name] += 1


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


def _same(some: Mapping[Any, torch.Tensor], others: Mapping[Any, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(x, others[k]) for k, x in some.items())


def _close(x: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or x.shape != other.shape:
        return False
    if not x.numel():
        return True
    return bool((x - other).abs().max() <= TOLERANCE * x.abs().max() + 1e-12)
