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
from .observe import Forward, Visit, observe

MEMORY = 2**31
"""Bytes of outputs that are held, shared equally by the batches."""

COMPACT = (SparseFusionConv2d, LowRankLinear)


class Replay:
    """A forward pass, as far as some layer, that goes on from outputs of its earlier runs.

    To be run for one layer after another, in the order in which they run, each of which may change
    or be replaced after its own run: all that comes before the layer is final then. Outputs of the
    last layers before it are held as far as memory allows. The next run gets them instead of
    computing them, and gets no numbers at all (tensors on the meta device) from the layers before
    those. Where a model needs one of these after all, over a skip connection for instance, it is
    run in full.

    Args:
        batches, forward: as for :class:`Task`.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Any], forward: Forward):
        self.model, self.batches, self.forward = model, batches, forward
        # Of each batch, the outputs of a layer's calls, in the order in which they were computed.
        self.held: list[dict[tuple[nn.Module, int], torch.Tensor]] = [{} for _ in batches]
        # Of every call, the shape of its input, and its output without numbers.
        self.unknown: list[dict[tuple[nn.Module, int], tuple]] = [{} for _ in batches]
        self.share = MEMORY // len(batches)
        self.number = {id(batch): number for number, batch in enumerate(batches)}

    def up_to(self, layer: nn.Module, calls: Sequence[int], visit: Visit) -> Iterator[int]:
        """Show each input of one layer to ``visit``, and end each batch after its last call.

        Args:
            calls: of the layer, in each batch.

        Yields:
            the number of each batch when that is done
        """
        for batch in range(len(self.batches)):
            try:
                inputs = self._inputs(layer, batch, calls[batch], self._run)
                complete = not any(x.is_meta for x in inputs)
            except Exception:  # whatever a model makes of numbers that are not there
                complete = False
            if not complete:
                inputs = self._inputs(layer, batch, calls[batch], self.forward)
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
        with _replaced_forwards(model, self._output), _NoMixture():
            self.forward(model, inputs)

    def _output(self, layer: nn.Module, forward, *args, **kwargs) -> torch.Tensor:
        """What a layer puts out: held, unknown, or computed."""
        x = args[0] if args else next(iter(kwargs.values()))
        call = layer, self.calls[layer]
        self.calls[layer] += 1
        shape, unknown = self.unknown[self.batch].get(call, (None, None))
        if self.recording and shape == x.shape:
            if call in self.held[self.batch]:
                return self.held[self.batch][call].clone()  # whoever gets it may work in place
            if call in self.skipped:
                return unknown
        output = forward(*args, **kwargs)
        if self.recording and isinstance(output, torch.Tensor):
            self.unknown[self.batch][call] = x.shape, torch.empty_like(output, device="meta")
            self._hold(call, output)
        return output

    def _hold(self, call: tuple[nn.Module, int], output: torch.Tensor) -> None:
        held = self.held[self.batch]
        if _bytes(output) > self.share:
            return
        while sum(map(_bytes, held.values())) + _bytes(output) > self.share:
            held.pop(next(iter(held)))
        held[call] = output.clone()


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
    for layer in layers:
        layer.forward = partial(output, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that own parameters, and none inside of another: they do the work."""
    if isinstance(module, COMPACT) or next(module.parameters(recurse=False), None) is not None:
        yield module
    else:
        for child in module.children():
            yield from _layers(child)
