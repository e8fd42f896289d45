"""Run a model again and again without computing again what has not changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ..compat import TorchDispatchMode, tree_leaves
from ..layers import LowRankLinear, SparseFusionConv2d
from .observe import Forward, Visit, first_argument, observe

MEMORY = 2**31
"""Bytes that are held, shared equally by the batches."""

COMPACT = (SparseFusionConv2d, LowRankLinear)

Call = tuple[str, int]
"""The name of a layer, and the number of its call."""


class Replay:
    """A forward pass, as far as some layer, that goes on from outputs of its earlier runs.

    To be run for one layer after another, in the order in which they run, each of which may change
    or be replaced after its own run: all that comes before the layer is final then. Outputs of the
    last layers before it and its input, which is smaller where something pools before it, are held
    as far as memory allows. The next run gets them instead of computing them, and gets no numbers
    at all (tensors on the meta device) from the layers before those. Where a model needs one of
    these after all, over a skip connection for instance, it is run in full.

    Args:
        batches, forward: as for :class:`Task`.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Any], forward: Forward):
        self.model, self.batches, self.forward = model, batches, forward
        # Of each batch, the outputs of a layer's calls, in the order in which they were computed.
        self.held: list[dict[Call, torch.Tensor]] = [{} for _ in batches]
        # Of each batch, the call whose input is held, and the input.
        self.begun: list[tuple[Call, torch.Tensor] | None] = [None for _ in batches]
        # Of every call, the shape of its input, and its output without numbers.
        self.unknown: list[dict[Call, tuple]] = [{} for _ in batches]
        self.share = MEMORY // len(batches)
        self.number = {id(batch): number for number, batch in enumerate(batches)}

    def up_to(self, layer: nn.Module, calls: Sequence[int], visit: Visit) -> Iterator[int]:
        """Show each input of one layer to ``visit``, and end each batch after its last call.

        Args:
            calls: of the layer, in each batch.

        Yields:
            the number of each batch when that is done
        """
        names = {module: name for name, module in _layers(self.model)}
        for batch in range(len(self.batches)):
            try:
                inputs = self._inputs(layer, batch, calls[batch], self._run)
                complete = not any(x.is_meta for x in inputs)
            except Exception:  # whatever a model makes of numbers that are not there
                complete = False
            if not complete:
                inputs = self._inputs(layer, batch, calls[batch], self.forward)
            self.begun[batch] = None
            if complete and len(inputs) == 1 and layer in names:  # between several, others run
                self._begin(batch, (names[layer], 0), inputs[0])
            for call, x in enumerate(inputs):
                visit(batch, call, x)
            yield batch

    def _inputs(self, layer: nn.Module, batch: int, calls: int, forward: Forward) -> list:
        inputs = []

        def look(_, call, x):
            self.recording = False  # what comes between two calls of a layer is not final yet
            done = call + 1 >= calls
            inputs.append(x if done else x.clone())  # the model may go on to change it
            return done

        for _ in observe(self.model, self.batches[batch : batch + 1], forward, {layer: look}):
            pass
        return inputs

    def _run(self, model: nn.Module, inputs: Any) -> None:
        self.batch, self.calls, self.recording = self.number[id(inputs)], Counter(), True
        held, order = self.held[self.batch], list(self.unknown[self.batch])
        self.skipped = set(order[: order.index(list(held)[-1])] if held else ())
        if self.begun[self.batch] is not None:
            self.skipped = set(order)  # all of them came before
        with _replaced_forwards(model, self._output), _NoMixture():
            self.forward(model, inputs)

    def _output(self, name: str, forward, *args, **kwargs) -> torch.Tensor:
        """What a layer puts out: held, unknown, or computed."""
        x = first_argument(args, kwargs)
        call = name, self.calls[name]
        self.calls[name] += 1
        shape, unknown = self.unknown[self.batch].get(call, (None, None))
        if self.recording and shape == x.shape:
            if call in self.held[self.batch]:
                return self.held[self.batch][call].clone()  # whoever gets it may work in place
            if call in self.skipped:
                return unknown
        begun, known = self.begun[self.batch] or (None, x)
        if begun == call and x.is_meta and known.shape == x.shape:
            x = known.clone()
        if args:
            output = forward(x, *args[1:], **kwargs)
        else:
            output = forward(**{**kwargs, next(iter(kwargs)): x})
        if self.recording and isinstance(output, torch.Tensor):
            self.unknown[self.batch][call] = x.shape, torch.empty_like(output, device="meta")
            self._hold(call, output)
        return output

    def _begin(self, batch: int, call: Call, x: torch.Tensor) -> None:
        """Hold the input of the call in which the next run begins, if there is room."""
        if self._make_room(batch, x):
            self.begun[batch] = call, x.clone()

    def _hold(self, call: Call, output: torch.Tensor) -> None:
        if self._make_room(self.batch, output):
            self.held[self.batch][call] = output.clone()

    def _make_room(self, batch: int, x: torch.Tensor) -> bool:
        """Give up the oldest outputs of a batch until ``x`` can be held as well, if it can."""
        held, begun = self.held[batch], self.begun[batch]
        room = self.share - (_bytes(begun[1]) if begun else 0)
        if _bytes(x) > room:
            return False
        while sum(map(_bytes, held.values())) + _bytes(x) > room:
            held.pop(next(iter(held)))
        return True


def _bytes(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


class _NoMixture(TorchDispatchMode):
    """Refuses operations on numbers together with tensors that have none.

    PyTorch does some of them, in silence and wrong.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if len({x.is_meta for x in tensors}) > 1:
            raise RuntimeError(f"{function} of numbers that are not there")
        return function(*args, **(kwargs or {}))


@contextmanager
def _replaced_forwards(model: nn.Module, output) -> Iterator[None]:
    layers = list(_layers(model))
    for name, layer in layers:
        layer.forward = partial(output, name, layer.forward)
    try:
        yield
    finally:
        for _, layer in layers:
            del layer.forward


def _layers(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that own parameters, and none inside of another: they do the work."""
    if isinstance(module, COMPACT) or next(module.parameters(recurse=False), None) is not None:
        yield name, module
    else:
        for inner, child in module.named_children():
            yield from _layers(child, f"{name}.{inner}")
