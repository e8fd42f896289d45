"""How a model uses some of its layers, and which of their outputs are looked at."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..compat import tree_leaves
from ..hooks import attached
from .observe import Forward, observe
from .patches import count_patches

COUNTED_BATCHES = 4


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not. Buffers (frozen batch norm) are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


class Survey:
    """Counts for one batch, as the mean of a few batches that are run for it.

    Attributes:
        outputs: for each layer that is called, in the order of the first calls, how many output
            positions it has in all of its calls.
        before: multiply-adds that run before the last call of each layer.
        multiply_adds: of all convolutions and fully connected layers of the model.
        read: the layers whose weights something else reads, and which must therefore stay.
        batch: the one of median size among the few.
        inputs: of each layer that is called, what it gets in that batch, as tensors without data.
        positions: of each fully connected layer that reads flattened maps, of how many pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        batches: Sequence[Any],
        forward: Forward,
    ):
        counted = batches[:: -(-len(batches) // COUNTED_BATCHES)]
        outputs: dict[str, int] = {}
        before: Counter = Counter()
        inputs: list[dict[str, list[torch.Tensor]]] = []
        self.multiply_adds = done = 0

        def add_multiply_adds(module, args, output):
            outputs, weights = sizes[module]
            self.multiply_adds += weights * (output.numel() // outputs)

        def visit(name):
            def count(batch, call, x):
                maps.look(name, x)
                outputs[name] = outputs.get(name, 0) + count_patches(layers[name], x)
                reached[name] = self.multiply_adds - done
                shapes.setdefault(name, []).append(torch.empty_like(x, device="meta"))

            return count

        multiplying = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        sizes = {m: (len(m.weight), m.weight.numel()) for m in multiplying}
        readers, maps = _Readers(layers), _Maps(model, layers)
        reached: dict[str, int] = {}
        shapes: dict[str, list[torch.Tensor]] = {}
        visits = {layer: visit(name) for name, layer in layers.items()}
        counting = (m.register_forward_hook(add_multiply_adds) for m in multiplying)
        with attached(counting), attached(readers.hooks()), attached(maps.hooks()), readers:
            for _ in observe(model, counted, forward, visits):
                before.update(reached)
                reached.clear()
                inputs.append(dict(shapes))
                shapes.clear()
                done = self.multiply_adds
        sizes = [sum(x.numel() for calls in seen.values() for x in calls) for seen in inputs]
        middle = sorted(range(len(counted)), key=sizes.__getitem__)[len(counted) // 2]
        self.batch, self.inputs = counted[middle], inputs[middle]
        self.read, self.positions = readers.found, maps.positions
        self.outputs = {name: total / len(counted) for name, total in outputs.items()}
        self.before = {name: total / len(counted) for name, total in before.items()}
        self.multiply_adds /= len(counted)


class _Readers(TorchFunctionMode):
    """Notices who uses a layer's weight while that layer does not run."""

    def __init__(self, layers: Mapping[str, nn.Module]):
        super().__init__()
        self.layers = layers
        self.name = {id(layer.weight): name for name, layer in layers.items()}
        self.running: list[str] = []
        self.found: set[str] = set()

    def hooks(self) -> Iterator[Any]:
        for name, layer in self.layers.items():
            # Before and after all other hooks, which may use the weight as well.
            yield layer.register_forward_pre_hook(
                lambda *_, name=name: self.running.append(name), prepend=True
            )
            yield layer.register_forward_hook(self._leave)

    def _leave(self, *_) -> None:
        self.running.pop()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            name = self.name.get(id(value))
            if name is not None and name not in self.running:
                self.found.add(name)
        return function(*args, **(kwargs or {}))


class _Maps:
    """Notices which fully connected layers get what ``maps.flatten(1)`` gives of (N, C, H, W).

    Attributes:
        positions: H * W, by the name of the layer.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]):
        self.modules = list(model.modules())
        self.linear = {name: x for name, x in layers.items() if isinstance(x, nn.Linear)}
        self.features = {layer.in_features for layer in self.linear.values()}
        self.seen: dict[tuple[int, int], torch.Tensor] = {}
        self.positions: dict[str, int] = {}
        self.others: set[str] = set()

    def hooks(self) -> Iterator[Any]:
        for module in self.modules if self.linear else ():
            yield module.register_forward_pre_hook(lambda _, args: self._see(args))
            yield module.register_forward_hook(lambda _, args, output: self._see(output))

    def _see(self, values: Any) -> None:
        for x in tree_leaves(values):
            if isinstance(x, torch.Tensor) and x.dim() == 4 and x[0:1, 0].numel() > 1:
                features = x[0].numel()
                if features in self.features:
                    self.seen[len(x), features] = x

    def look(self, name: str, x: torch.Tensor) -> None:
        """What a layer gets."""
        if name not in self.linear or not x.numel():
            return
        maps = self.seen.get(tuple(x.shape))
        if maps is None or not torch.equal(maps.flatten(1), x):
            self.others.add(name)
        if name in self.others:
            self.positions.pop(name, None)
        else:
            self.positions[name] = maps[0, 0].numel()


class Sample:
    """Which outputs of a layer are looked at: asked again, it gives the same answer.

    Args:
        expected: for each layer, how many outputs it has in all batches together.
        wanted: for each layer, about how many of them to take.
    """

    def __init__(self, expected: Mapping[str, float], wanted: Mapping[str, int]):
        self.share = {name: wanted[name] / max(count, 1) for name, count in expected.items()}

    def __call__(self, name: str, batch: int, call: int, count: int) -> torch.Tensor:
        """Positions, in increasing order, out of ``count`` in one call of a layer in one batch."""
        if self.share[name] >= 1:
            return torch.arange(count)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {batch} {call}".encode()))
        return (torch.rand(count, generator=generator) < self.share[name]).nonzero().flatten()
