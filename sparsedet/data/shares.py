"""Splits of data that come without any: a share of the images, the same whenever it is taken."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError

SHARES = ("train", "test")


@dataclass(frozen=True)
class Share:
    """``{train: 0.8}`` is the first 80% of a fixed permutation, ``{test: 0.2}`` the last 20%.

    The permutation orders by a hash of each image's name, so it depends neither on the order of
    the files nor on the machine, and a new image moves only its neighbours.
    """

    name: str
    size: float

    def take(self, names: Sequence[str], title: str) -> set[str]:
        """Those of the image names that are in it.

        Raises:
            InputError: there are none.
        """
        order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        if self.name == "train":
            taken = order[: _part(self.size, len(order))]
        else:
            taken = order[_part(1 - self.size, len(order)) :]
        if not taken:
            raise InputError(f"{title}: no image is in {self}, of the {len(order)} there are")
        return set(taken)

    def __str__(self) -> str:
        return f"{{{self.name}: {self.size:g}}}"


def _part(size: float, count: int) -> int:
    """Rounded, and 1 - 0.3 of them as 0.7."""
    return math.floor(round(size * count, 6) + 0.5)
