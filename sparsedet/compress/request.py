"""What a user asks of a compression."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..kernels import PATTERNS
from .profile import SEARCHED_PATTERNS


@dataclass(frozen=True, kw_only=True)
class Request:
    """Either a plan, which says what each layer becomes, or targets, which all are to be met.

    Attributes:
        plan: a file, or what :func:`resolve_plan` takes.
        params, flops, latency: the factors by which the model's parameters, its multiply-adds (one
            is one flop here) and its time on this machine are to shrink.
        include, exclude: shell-style patterns of the names of layers that targets may change.
        patterns: the sparse kernels among which targets choose, layer by layer.
        no_slower: let no layer become slower on this machine, as it is with ``latency``.
        width: targets may also leave out channels that one layer alone reads.
        calibrate: False projects the weights alone, for comparison.

    Raises:
        InputError: neither a plan nor targets, or both; a factor below 1; an unknown pattern.
    """

    plan: str | os.PathLike | Mapping[str, Any] | None = None
    params: float | None = None
    flops: float | None = None
    latency: float | None = None
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    patterns: Sequence[str] = SEARCHED_PATTERNS
    no_slower: bool = False
    width: bool = False
    calibrate: bool = True

    def __post_init__(self) -> None:
        if self.plan is None and not self.targets:
            raise InputError("nothing to do: give a target, such as params=12.4, or a plan")
        if self.plan is not None and self.targets:
            given = ", ".join(self.targets)
            raise InputError(f"a plan and a target ({given}) contradict: give one of them")
        for unit, factor in self.targets.items():
            if not isinstance(factor, (int, float)) or not 1 <= factor < float("inf"):
                raise InputError(f"target {unit} {factor}: must be a factor of at least 1")
        if self.width and not self.calibrate:
            raise InputError("width needs calibration: channels are chosen on images")
        for pattern in self.patterns:
            if pattern not in PATTERNS:
                known = ", ".join(PATTERNS)
                raise InputError(f"patterns: there is no {pattern!r}; some of {known}")

    @property
    def targets(self) -> dict[str, float]:
        """Those that are given, by unit."""
        targets = {"params": self.params, "flops": self.flops, "latency": self.latency}
        return {unit: factor for unit, factor in targets.items() if factor is not None}
