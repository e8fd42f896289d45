"""Ranks and patterns of all layers for the size, arithmetic or time that a model is to meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import InputError
from .plan import LayerPlan, Plan
from .profile import Option, Profile


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
            (parameters) and "flops" (multiply-adds of the calibration's forward pass).

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
    search = _Search(profile, {unit: known[unit] for unit in targets}, targets)
    search.shrink()
    search.give_back()
    return {name: option.plan for name, option in search.chosen.items() if option.plan is not None}


def _own_costs(profile: Profile) -> dict[str, Cost]:
    weights = {
        name: {option.plan: option.weights for option in layer.options}
        for name, layer in profile.layers.items()
    }
    dense = {name: weights[name][None] for name in weights}
    outputs = {name: layer.outputs for name, layer in profile.layers.items()}
    return {
        "params": Cost(
            lambda name, plan: weights[name][plan], profile.parameters - sum(dense.values())
        ),
        "flops": Cost(
            lambda name, plan: outputs[name] * weights[name][plan],
            profile.multiply_adds - sum(outputs[name] * dense[name] for name in dense),
        ),
    }


class _Search:
    def __init__(self, profile: Profile, costs: Mapping[str, Cost], targets: Mapping[str, float]):
        self.options = {name: layer.options for name, layer in profile.layers.items()}
        self.chosen = {name: options[0] for name, options in self.options.items()}
        # In units of the dense model's whole cost.
        self.costs: dict[tuple[str, Option], dict[str, float]] = {}
        total = {}
        for unit, cost in costs.items():
            dense = sum(cost.layer(name, None) for name in self.options)
            total[unit] = cost.rest + dense
            for name, options in self.options.items():
                for option in options:
                    value = cost.layer(name, option.plan) / total[unit]
                    self.costs.setdefault((name, option), {})[unit] = value
        self.rest = {unit: cost.rest / total[unit] for unit, cost in costs.items()}
        self.targets = targets
        self.excess = {unit: 1 - 1 / factor for unit, factor in targets.items()}

    def shrink(self) -> None:
        while any(excess > 1e-9 for excess in self.excess.values()):
            moves = [
                (_loss(option) - _loss(self.chosen[name]), self._relief(name, option), name, option)
                for name, options in self.options.items()
                for option in options
            ]
            moves = [move for move in moves if move[1] > 1e-12]
            if not moves:
                raise InputError(self._out_of_reach())
            _, _, name, option = min(moves, key=lambda move: move[0] / move[1])
            self._choose(name, option)

    def give_back(self) -> None:
        while True:
            moves = [
                (_loss(self.chosen[name]) - _loss(option), name, option)
                for name, options in self.options.items()
                for option in options
                if all(excess <= 1e-9 for excess in self._after(name, option).values())
            ]
            gain, name, option = max(moves, key=lambda move: move[0], default=(0, None, None))
            if gain <= 1e-12:
                return
            self._choose(name, option)

    def _after(self, name: str, option: Option) -> dict[str, float]:
        """The excess over each target once ``option`` is chosen; negative where there is room."""
        now, then = self.costs[name, self.chosen[name]], self.costs[name, option]
        return {unit: excess - now[unit] + then[unit] for unit, excess in self.excess.items()}

    def _relief(self, name: str, option: Option) -> float:
        after = self._after(name, option)
        return sum(max(self.excess[unit], 0) - max(after[unit], 0) for unit in after)

    def _choose(self, name: str, option: Option) -> None:
        self.excess = self._after(name, option)
        self.chosen[name] = option

    def _out_of_reach(self) -> str:
        parts = []
        for unit, factor in self.targets.items():
            least = self.rest[unit] + sum(
                min(self.costs[name, option][unit] for option in options)
                for name, options in self.options.items()
            )
            parts.append(f"{unit} {factor:g}x (at most {1 / least:.1f}x)")
        return f"out of reach: {', '.join(parts)}; compress more of the layers or ask for less"


def _loss(option: Option) -> float:
    return -math.log1p(-min(option.error, 0.999))
