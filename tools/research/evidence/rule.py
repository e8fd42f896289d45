"""When a training has come to its end: validation no longer improves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsedet.errors import InputError

METRIC = "AP50"


@dataclass(frozen=True)
class Rule:
    """A training is evaluated every so often, and goes on at its rate until that is no use.

    Then it goes on at a tenth of the rate for a fixed while, and ends. The model is the last one,
    not the best of those evaluated, for that one would have been chosen on the test images.

    Attributes:
        every: iterations from one evaluation to the next.
        most: iterations at the first rate, even if it still helps.
        patience: so many evaluations in a row without a better AP50 end the first rate.
        settle: iterations at a tenth of it.

    Raises:
        InputError: a value that would never end, or that is no whole number.
    """

    every: int
    most: int
    patience: int = 0
    settle: int = 0

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("most", 1), ("patience", 0), ("settle", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"rule: {name} is {value!r}; a whole number from {least} on")

    def next(self, evaluations: Sequence[Mapping]) -> tuple[int, tuple[int, ...]] | None:
        """Up to which iteration to go on, and where the rate falls; None when it is over.

        Args:
            evaluations: what there was so far, each with ``iteration`` and AP50 in percent.
        """
        done = evaluations[-1]["iteration"] if evaluations else 0
        fall = self.fall(evaluations)
        if fall is None:
            return min(done + self.every, self.most), ()
        if done < fall + self.settle:
            return min(done + self.every, fall + self.settle), (fall,)
        return None

    def fall(self, evaluations: Sequence[Mapping]) -> int | None:
        """The iteration at which the first rate ends; None if that is not yet known."""
        best, waited = float("-inf"), 0
        for evaluation in evaluations:
            waited = 0 if evaluation[METRIC] > best else waited + 1
            best = max(best, evaluation[METRIC])
            if evaluation["iteration"] >= self.most or 0 < self.patience <= waited:
                return evaluation["iteration"]
        return None

    def reason(self, evaluations: Sequence[Mapping]) -> str:
        """Of the end of the first rate."""
        if self.fall(evaluations) == self.most:
            return f"after {self.most} iterations"
        return f"no better {METRIC} in {self.patience} evaluations, one every {self.every}"
