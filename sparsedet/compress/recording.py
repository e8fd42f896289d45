"""What the layers of the dense model put out, kept at a sample of positions."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn

from ..errors import InputError
from .fit import wanted_samples
from .observe import Visit
from .patches import count_patches, outputs_at, take_patches
from .survey import Sample


class Recording:
    """The outputs that compact layers are to give, from one run of the dense model on all batches.

    Args:
        layers: of the dense model, by name.
        dense: names of those that will be fitted, but stay dense.
        outputs: how many positions the output of each layer has in one batch.
        batches: how many there are.

    Attributes:
        calls: of each layer, for each batch and call: the number of positions, and the outputs at a
            sample of them.
        done: whether the dense model has run.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        dense: Collection[str],
        outputs: Mapping[str, float],
        batches: int,
    ):
        self.layers = {name: layers[name] for name in outputs}
        self.wanted = {n: wanted_samples(x, n not in dense) for n, x in self.layers.items()}
        self.sample = Sample({name: outputs[name] * batches for name in self.wanted}, self.wanted)
        self.calls: dict[str, list[list[tuple[int, torch.Tensor]]]] = {
            name: [[] for _ in range(batches)] for name in self.wanted
        }
        self.done = False

    def copy(self) -> Recording:
        """The same outputs, to be used up."""
        other = copy.copy(self)
        other.calls = dict(self.calls)
        return other

    def serves(self, dense: Collection[str]) -> bool:
        """Whether it is made, with samples enough where these layers are fitted and stay dense."""
        return self.done and all(
            self.wanted[name] >= wanted_samples(self.layers[name], False) for name in dense
        )

    def visits(self, others: Mapping[nn.Module, Visit], every: int) -> dict[nn.Module, Visit]:
        """Visits that record every batch, and show each ``every``-th to others, counted anew."""

        def visit(name: str | None, other: Visit | None) -> Visit:
            def look(batch, call, x):
                if name is not None:
                    self._record(name, batch, call, x)
                if other is not None and batch % every == 0:
                    other(batch // every, call, x)

            return look

        names = {layer: name for name, layer in self.layers.items()}
        modules = dict.fromkeys([*names, *others])
        return {module: visit(names.get(module), others.get(module)) for module in modules}

    def _record(self, name: str, batch: int, call: int, x: torch.Tensor) -> None:
        count, patches = self.patches(name, self.layers[name], batch, call, x)
        self.calls[name][batch].append((count, outputs_at(self.layers[name], patches)))

    def patches(
        self, name: str, layer: nn.Module, batch: int, call: int, x: torch.Tensor
    ) -> tuple[int, torch.Tensor]:
        """The number of outputs in a call of what is in the layer's place, and a sample's patches.

        Raises:
            InputError: they are not finite.
        """
        count = count_patches(layer, x)
        patches = take_patches(layer, x, self.sample(name, batch, call, count))
        if not patches.isfinite().all():
            raise InputError(
                f"{name}: its inputs are not finite; check that the weights are trained and that "
                "the images are preprocessed as they need"
            )
        return count, patches
