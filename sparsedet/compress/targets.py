"""Ranks and patterns of all layers for the size, arithmetic or time that a model is to meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import InputError
from .plan import LayerPlan, Plan, within
from .profile import Option, Profile, WidthOption


@dataclass(frozen=True)
class Cost:
    """What a model costs in some unit.

    Attributes:
        layer: ``layer(name, plan)`` is the cost of one layer under a plan, dense if that is None.
        rest: the cost of all that the profile does not hold.
    """

    layer: Callable[[str, LayerPlan | None], float]
    rest: float = 0.0


def plan_for_targets(
    profile: Profile, targets: Mapping[str, float], costs: Mapping[str, Cost] | None = None
) -> Plan:
    """The plan that reaches every target at the least loss of accuracy that a greedy search finds.

    From the dense model on, whatever reduces what is still too much at the least loss per unit is
    done next; at the end, what the last steps saved in excess is given back where it helps most.
    The loss is the sum over layers of ``-log(1 - error)``: the product of the kept shares of
    variance is made large, as Zhang et al. (arXiv 1505.06798) choose ranks.

    Args:
        targets: factors by which the whole model is to shrink: ``{"params": 12.4, "flops": 3}``.
        costs: further units by name, such as a measured latency, or other measures of "params"
            (parameters) and "flops" (multiply-adds of the forward pass where it is deployed).

    Raises:
        InputError: a target below 1, or out of reach; the message says how far one can go.
        ValueError: a target without a cost.
    """
    known = {**_own_costs(profile), **(costs or {})}
    for unit, factor in targets.items():
        if unit not in known:
            raise ValueError(f"unknown target {unit!r}; one of {', '.join(known)}")
        if not (isinstance(factor, (int, float)) and 1 <= factor < math.inf):
            raise InputError(f"target {unit} {factor}: must be a factor of at least 1")
    costs = {unit: known[unit] for unit in targets}
    search = _Search(profile, costs, targets)
    search.shrink()
    search.give_back()
    if profile.widths:  # a first step by width may lead to less than one by rank
        ranks = _Search(replace(profile, widths={}), costs, targets)
        try:
            ranks.shrink()
        except InputError:  # they are out of reach without
            return search.plan()
        ranks.give_back()
        search = min(search, ranks, key=_Search.loss)
    return search.plan()


def largest_factor(profile: Profile, unit: str, costs: Mapping[str, Cost] | None = None) -> float:
    """The factor by which the whole model can shrink in one unit of :func:`plan_for_targets`."""
    known = {**_own_costs(profile), **(costs or {})}
    return _Search(profile, {unit: known[unit]}, {unit: 1.0}).largest_factors()[unit]


def _own_costs(profile: Profile) -> dict[str, Cost]:
    options = {
        name: {option.plan: option for option in layer.options}
        for name, layer in profile.layers.items()
    }
    dense = {name: options[name][None].weights for name in options}
    outputs = {name: layer.outputs for name, layer in profile.layers.items()}
    return {
        "params": Cost(
            lambda name, plan: options[name][plan].weights, profile.parameters - sum(dense.values())
        ),
        "flops": Cost(
            lambda name, plan: outputs[name] * options[name][plan].multiply_adds,
            profile.multiply_adds - sum(outputs[name] * dense[name] for name in dense),
        ),
    }


Choice = Option | WidthOption


class _Search:
    """One option for each layer and, by (producer, reader), for each width."""

    def __init__(self, profile: Profile, costs: Mapping[str, Cost], targets: Mapping[str, float]):
        self.profile = profile
        self.options: dict[str | tuple[str, str], list[Choice]] = {
            name: layer.options for name, layer in profile.layers.items()
        }
        self.feeds: dict[str, tuple[str, str]] = {}  # what gives a layer its inputs
        self.width: dict[str, tuple[str, str]] = {}  # and takes its outputs
        for name, width in profile.widths.items():
            pair = name, width.link.reader
            self.options[pair] = width.options
            self.width[name] = self.feeds[width.link.reader] = pair
        self.chosen = {knob: options[0] for knob, options in self.options.items()}
        # In units of the dense model's whole cost.
        self.costs: dict[tuple[str, Option], dict[str, float]] = {}
        total = {}
        for unit, cost in costs.items():
            dense = sum(cost.layer(name, None) for name in profile.layers)
            total[unit] = cost.rest + dense
            for name, layer in profile.layers.items():
                for option in layer.options:
                    value = cost.layer(name, option.plan) / total[unit]
                    self.costs.setdefault((name, option), {})[unit] = value
        self.rest = {unit: cost.rest / total[unit] for unit, cost in costs.items()}
        self.targets = targets
        self.excess = {unit: 1 - 1 / factor for unit, factor in targets.items()}

    def plan(self) -> Plan:
        """What is chosen."""
        plan = {}
        for name, layer in self.profile.layers.items():
            entry = self.chosen[name].plan or LayerPlan()
            inputs, outputs = self._channels(name)
            if inputs != layer.channels[0]:
                entry = replace(entry, in_channels=inputs)
            if outputs != layer.channels[1]:
                link = self.profile.widths[name].link
                entry = replace(entry, out_channels=outputs, channelwise=link.channelwise)
            if entry.in_channels or entry.out_channels:
                entry = within(entry, inputs, outputs)
            if entry != LayerPlan():
                plan[name] = entry
        return plan

    def loss(self) -> float:
        """Of all layers together."""
        return sum(map(_loss, self.chosen.values()))

    def shrink(self) -> None:
        """Until no target is missed."""
        while any(excess > 1e-9 for excess in self.excess.values()):
            moves = [
                (_loss(option) - _loss(self.chosen[knob]), self._relief(knob, option), knob, option)
                for knob, options in self.options.items()
                for option in options
            ]
            moves = [move for move in moves if move[1] > 1e-12]
            if not moves:
                raise InputError(self._out_of_reach())
            _, _, knob, option = min(moves, key=lambda move: move[0] / move[1])
            self._choose(knob, option)

    def give_back(self) -> None:
        """As long as no target is missed."""
        while True:
            moves = [
                (_loss(self.chosen[knob]) - _loss(option), knob, option)
                for knob, options in self.options.items()
                for option in options
                if all(excess <= 1e-9 for excess in self._after(knob, option).values())
            ]
            gain, knob, option = max(moves, key=lambda move: move[0], default=(0, None, None))
            if gain <= 1e-12:
                return
            self._choose(knob, option)

    def _after(self, knob: str | tuple[str, str], option: Choice) -> dict[str, float]:
        """The excess over each target once ``option`` is chosen; negative where there is room."""
        names = [knob] if isinstance(knob, str) else knob
        before = self.chosen[knob]
        now = [self._cost(name) for name in names]
        self.chosen[knob] = option
        then = [self._cost(name) for name in names]
        self.chosen[knob] = before
        after = {}
        for unit, excess in self.excess.items():
            for old, new in zip(now, then):
                excess = excess - old[unit] + new[unit]
            after[unit] = excess
        return after

    def _cost(self, name: str) -> dict[str, float]:
        """Of a layer with its channels, which take their share of its weights in any unit."""
        option, dense = self.chosen[name], self.profile.layers[name].channels
        cost, (inputs, outputs) = self.costs[name, option], self._channels(name)
        if (inputs, outputs) == dense:
            return cost
        reading, giving = inputs / dense[0], outputs / dense[1]
        if option.plan is None:
            return {unit: value * reading * giving for unit, value in cost.items()}
        last, middle = sum(option.plan.ranks) * dense[1], 0
        if option.plan.channel_rank:
            # What reads the mixed channels of maps has as many of them as before.
            middle = option.plan.ranks[0] * option.plan.channel_rank * option.plan.positions
        narrower = {}
        for unit, value in cost.items():
            whole = option.weights if unit == "params" else option.multiply_adds
            first = whole - middle - last
            narrower[unit] = value * (first * reading + middle + last * giving) / whole
        return narrower

    def _channels(self, name: str) -> tuple[int, int]:
        inputs, outputs = self.profile.layers[name].channels
        if name in self.feeds:
            pair = self.feeds[name]
            inputs = inputs * self.chosen[pair].channels // self.options[pair][0].channels
        if name in self.width:
            outputs = self.chosen[self.width[name]].channels
        return inputs, outputs

    def _relief(self, knob: str | tuple[str, str], option: Choice) -> float:
        after = self._after(knob, option)
        return sum(max(self.excess[unit], 0) - max(after[unit], 0) for unit in after)

    def _choose(self, knob: str | tuple[str, str], option: Choice) -> None:
        self.excess = self._after(knob, option)
        self.chosen[knob] = option

    def largest_factors(self) -> dict[str, float]:
        """How far each unit alone can shrink. The choice is spoilt by it."""
        for pair in self.width.values():
            self.chosen[pair] = self.options[pair][-1]
        least = dict(self.rest)
        for name, layer in self.profile.layers.items():
            costs = []
            for option in layer.options:
                self.chosen[name] = option
                costs.append(self._cost(name))
            for unit in least:
                least[unit] += min(cost[unit] for cost in costs)
        return {unit: 1 / share for unit, share in least.items()}

    def _out_of_reach(self) -> str:
        largest = self.largest_factors()
        parts = [
            f"{u} {factor:g}x (at most {largest[u]:.1f}x)" for u, factor in self.targets.items()
        ]
        return f"out of reach: {', '.join(parts)}; compress more of the layers or ask for less"


def _loss(option: Choice) -> float:
    return -math.log1p(-min(option.error, 0.999))
