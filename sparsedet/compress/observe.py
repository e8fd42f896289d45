"""Run a model and look at the inputs of some of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..hooks import attached

Forward = Callable[[nn.Module, Any], Any]
"""Runs the model on one batch. It must make the same calls each time: a detector's box head, for
instance, must see the same proposals whatever its trunk has become."""

Visit = Callable[[int, int, torch.Tensor], Any]
"""``visit(batch, call, x)`` sees the input ``x`` of a layer's call number ``call`` in a batch."""


def call_model(model: nn.Module, batch: Any) -> Any:
    """The default forward: the batch is the model's one argument."""
    return model(batch)


def observe(
    model: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
    visits: Mapping[nn.Module, Visit],
) -> Iterator[int]:
    """Run ``forward`` on every batch, and show each module's input to its visit before it runs.

    A visit that returns True ends the forward pass of its batch there.

    Yields:
        the number of each batch after it has run
    """
    calls: Counter = Counter()
    batch = 0

    def hook(module, args, kwargs):
        call = calls[module]
        calls[module] += 1
        x = first_argument(args, kwargs)
        if visits[module](batch, call, x):
            raise _Enough

    with attached(m.register_forward_pre_hook(hook, with_kwargs=True) for m in visits):
        for batch, inputs in enumerate(batches):  # noqa: B007  the hook reads it
            calls.clear()
            try:
                with torch.no_grad():
                    forward(model, inputs)
            except _Enough:
                pass
            yield batch


def first_argument(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """What a layer is called with, by position or by name."""
    return args[0] if args else next(iter(kwargs.values()))


def tensors_in(value: Any, depth: int = 6) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples, dicts and plain objects, such as instances and boxes."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    parts: Iterable[Any] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)):
        parts = vars(value).values()
    for part in parts if depth else ():
        yield from tensors_in(part, depth - 1)


class _Enough(Exception):
    """Ends a forward pass whose rest nobody looks at."""
