"""What the options of one layer are compared on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from .candidates import can_fuse
from .channels import ChannelChoice, channel_blocks, greedy_order
from .curves import Option, convolution_options, linear_options, maps_options
from .fit import ROWS
from .low_rank import white_variance
from .moments import Moments, Statistics
from .observe import observe
from .patches import count_patches, groups_of, split_patches, take_patches, weight_matrix
from .plan import channels_of
from .recording import Recording
from .sensitivity import Sensitivity
from .survey import Sample
from .task import Task

PATCHES = 4
"""Patches, as a multiple of the numbers in one; ranking options needs fewer than fitting one."""

EVERY = 3
"""And every third batch is enough for it."""

HELD_OUT = 4
"""Of so many batches one only tells how well channels are chosen on the others."""

MEMORY = 2**31
"""Bytes of statistics that are held at once; beyond, the batches run again for further layers."""


class Collector:
    """What one layer sees, and then its options.

    Args:
        holds_out: keep some batches out of the statistics, for :meth:`channel_errors`.
        positions: pixels of the flattened maps that a fully connected layer reads, if it does.
    """

    def __init__(
        self,
        layer: nn.Module,
        sample: Sample,
        name: str,
        sensitivity: Sensitivity,
        holds_out: bool = False,
        positions: int | None = None,
    ):
        self.layer, self.sample, self.name = layer, sample, name
        self.sensitivity, self.holds_out = sensitivity, holds_out
        self.positions = positions
        self.held_out: list[torch.Tensor] = []
        parts = sensitivity.split(groups_of(layer))
        weights = weight_matrix(layer.weight).float().chunk(len(parts))
        self.weights = [part.weigh(weight) for part, weight in zip(parts, weights)]
        self.centered = layer.bias is not None
        self.moments = [Moments(self.centered) for _ in parts]
        self.rows: list[torch.Tensor] = []
        self.samples = 0

    def collect(self, batch: int, call: int, x: torch.Tensor) -> None:
        """A visit, as :func:`observe` makes it."""
        count = count_patches(self.layer, x)
        patches = take_patches(self.layer, x, self.sample(self.name, batch, call, count))
        if self.holds_out and batch % HELD_OUT == 1:
            self.held_out.append(patches)
            return
        self.samples += len(patches)
        if isinstance(self.layer, nn.Linear):
            self.rows.append(patches)
        else:
            parts = zip(self.moments, split_patches(self.layer, patches), self.weights)
            for moments, part, weight in parts:
                moments.add(part, F.linear(part, weight))

    def options(self, patterns: Sequence[str]) -> list[Option]:
        """The dense layer and then the smaller ones; nothing can be collected afterwards."""
        if not self.samples:  # it ran on nothing, as a mask head does where nothing is found
            return [Option(None, self.layer.weight.numel(), 0.0)]
        if isinstance(self.layer, nn.Linear):
            x = torch.cat(self.rows)
            x -= x.mean(0) * self.centered
            [weight] = self.weights
            y = F.linear(x, weight)
            # On the samples, and on white inputs as the fit has them.
            white = white_variance(x)
            options = linear_options(self.layer, y.T @ y + white * (weight @ weight.T))
            if self.positions:
                options += maps_options(self.layer, self.positions, x, y, weight, white)
            return options
        fitting = [pattern for pattern in patterns if can_fuse(self.layer, pattern)]
        return convolution_options(self.layer, list(zip(self.statistics, self.weights)), fitting)

    @cached_property
    def statistics(self) -> list[Statistics]:
        """Of the patches and outputs of each group, regularised."""
        if isinstance(self.layer, nn.Linear):
            x = torch.cat(self.rows)
            self.moments[0].add(x, F.linear(x, self.weights[0]))
        statistics = [moments.statistics() for moments in self.moments]
        for group, weight in zip(statistics, self.weights):
            group.regularize_(weight.to(group.xx))
        return statistics

    def channels(self, count: int, most: int, order: Sequence[int] = ()) -> ChannelChoice:
        """Of ``count`` channels of the layer that this one reads, the order in which to keep them.

        Args:
            most: how many of them to order.
            order: of so many or more, if it is known.
        """
        inputs, taps = channels_of(self.layer)[0], self.layer.weight[0, 0].numel()
        statistics, blocks = self.statistics[0], channel_blocks(taps, count, inputs)
        if len(order) < most:
            order = greedy_order(statistics, blocks, most)
        return ChannelChoice(statistics, blocks, order[:most])

    def channel_errors(self, choice: ChannelChoice, counts: Sequence[int]) -> list[float]:
        """What is lost with so many channels, as a share of the variance of the outputs.

        On the batches that were held out: fitted to windows of many channels, a layer does better
        on what it was fitted to. Only where there is a single batch it is measured on that.
        """
        if not sum(map(len, self.held_out)):
            return choice.errors(counts)
        x, known = torch.cat(self.held_out), choice.statistics
        y = F.linear(x, self.weights[0])
        variance = (y - y.mean(0)).square().sum().clamp(min=1e-30)
        if self.centered:
            x, y = x - known.x.to(x), y - known.y.to(y)
        weights = (choice.weights(count, x.dtype) for count in counts)
        return [((y - F.linear(x, w)).square().sum() / variance).item() for w in weights]


def collected(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    outputs: Mapping[str, float],
    task: Task,
    sensitivities: Mapping[str, Sensitivity],
    hold_out: Collection[str] = (),
    every: int = 1,
    recording: Recording | None = None,
    positions: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, Collector]]:
    """Each layer by name, with what it sees on every so many-th batch.

    Args:
        outputs: how many positions the output of each layer has in one batch.
        hold_out: layers that keep some batches out of their statistics.
        recording: made on the way, on all batches.
        positions: of layers that read flattened maps, see :class:`Survey`.
    """
    positions = positions or {}
    batches = task.batches[::every]
    expected = {name: outputs[name] * len(batches) for name in layers}
    sample = Sample(expected, {name: wanted(layer) for name, layer in layers.items()})
    for names in _groups(layers):
        collectors = {
            name: Collector(
                layers[name],
                sample,
                name,
                sensitivities.get(name, Sensitivity()),
                name in hold_out,
                positions.get(name),
            )
            for name in names
        }
        visits = {layers[name]: collectors[name].collect for name in names}
        if recording is None or recording.done:
            run = observe(model, batches, task.forward, visits)
        else:
            visits = recording.visits(visits, every)
            run = observe(model, task.batches, task.forward, visits)
        for _ in run:
            pass
        if recording is not None:
            recording.done = True
        for name in names:
            yield name, collectors.pop(name)


def wanted(layer: nn.Module) -> int:
    """About how many positions of a layer to look at."""
    return ROWS if isinstance(layer, nn.Linear) else max(PATCHES * layer.weight[0].numel(), ROWS)


def _groups(layers: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Consecutive layers whose statistics fit in MEMORY together, or one that does not."""
    group: list[str] = []
    held = 0
    for name, layer in layers.items():
        size = layer.weight[0].numel()
        need = 4 * ROWS * size if isinstance(layer, nn.Linear) else 8 * size * size
        if group and held + need > MEMORY:
            yield group
            group, held = [], 0
        group.append(name)
        held += need
    if group:
        yield group
