"""What the numbers of a model mean beyond its classes: more names, and colours."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

Color = list[int]  # red, green, blue; 0 to 255


@dataclass(frozen=True)
class Labels:
    """Names and colours, as a dataset gives them; an empty list is what it does not say.

    Attributes:
        class_colors: by class index.
        stuff_names: by the index of a semantic map. A panoptic model's first is all things in one.
        stuff_colors: by the same index.
        keypoint_names: by keypoint index.
        skeleton: pairs of keypoint indices, to be joined by a line.
        skeleton_colors: of each line.
    """

    class_colors: list[Color] = field(default_factory=list)
    stuff_names: list[str] = field(default_factory=list)
    stuff_colors: list[Color] = field(default_factory=list)
    keypoint_names: list[str] = field(default_factory=list)
    skeleton: list[list[int]] = field(default_factory=list)
    skeleton_colors: list[Color] = field(default_factory=list)

    def check(self) -> None:
        """Raises ValueError where something here is not what the attributes say."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if type(value) is not list:
                raise ValueError(f"{entry.name} must be a list")
            if entry.name.endswith("_names") and not all(type(name) is str for name in value):
                raise ValueError(f"{entry.name} must be texts")
            if entry.name.endswith("_colors"):
                _check_numbers(entry.name, value, 3, 256)
        _check_numbers("skeleton", self.skeleton, 2, len(self.keypoint_names))


def _check_numbers(name: str, rows: list, length: int, limit: int) -> None:
    """Every row is a list of ``length`` integers from 0 up to ``limit``."""
    for row in rows:
        if type(row) is not list or len(row) != length:
            raise ValueError(f"{name} must be lists of {length}")
        if not all(type(value) is int and 0 <= value < limit for value in row):
            raise ValueError(f"{name} must be integers from 0, below {limit}")
