"""A run of a model whose layers are watched, and disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..hooks import attached
from .observe import first_argument, tensors_in
from .task import Task

ROWS = 4096
"""Positions that are compared in each input of a layer."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}
"""Integers of as many bytes as some number."""


class WatchedRun:
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
        # Of the inputs, and of what is given, some rows, and a sum of all bits.
        self.seen: dict[tuple[str, int], torch.Tensor] = {}
        self.sums: dict[tuple[str, int], int] = {}
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
        call = name, self.calls[name]
        rows = x.reshape(-1, x.shape[-1]) if x.dim() and x.shape[-1] else x.reshape(1, -1)
        self.seen[call] = rows[:: -(-len(rows) // ROWS) or 1].clone()
        self.sums[call] = int(rows.contiguous().view(BITS[x.element_size()]).sum())
        self.calls[name] += 1


def _rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A view of an input or output with the channels last."""
    return x if isinstance(layer, nn.Linear) else x.movedim(-3, -1)
