"""What is to be run: the studies of ``rows.yaml``, their rows, and what each row needs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedet.errors import InputError
from sparsedet.yaml_files import read_yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ROWS = HERE / "rows.yaml"


@dataclass(frozen=True, eq=False)
class Study:
    """One network on one data set: a table.

    Attributes:
        config: of the dense model.
        data: names of what :mod:`evidence.materials` finds: the data set, and weights to start
            from, if any.
        calibration: how many training images.
        training: of the dense model, phase by phase: ``opts`` of the config, and the rule by which
            the phase ends.
        finetuning: one such phase; the dense model is trained as much longer by the same.
    """

    name: str
    title: str
    config: Path
    data: tuple[str, ...]
    calibration: int
    training: tuple[Mapping[str, Any], ...]
    finetuning: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table with one seed: the unit of running and of recording.

    Attributes:
        do: what is done, a function of :mod:`evidence.steps`.
        settings: for it.
        parent: the row whose model it begins with; None for one that is trained from the start.
    """

    study: Study
    name: str
    seed: int
    do: str
    settings: Mapping[str, Any]
    parent: Row | None

    def __str__(self) -> str:
        return f"{self.study.name}/{self.name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Where it works, and how its record is called."""
        return f"{self.study.name}/{self.name}.seed{self.seed}"

    @property
    def command(self) -> str:
        return f"python tools/evidence.py run {self.study.name}/{self.name} --seed {self.seed}"

    def lineage(self) -> Iterator[Row]:
        """What must be run before it, the first one first, and then itself."""
        if self.parent is not None:
            yield from self.parent.lineage()
        yield self


def read_rows(path: Path = ROWS) -> dict[str, list[Row]]:
    """Every row with every seed, by the name of its study, in the order of the file.

    Raises:
        InputError: a row's parent does not stand before it.
    """
    rows: dict[tuple[str, str], dict[int, Row]] = {}
    for study_name, entry in read_yaml(str(path))["studies"].items():
        study = _study(study_name, entry)
        for name, settings in entry["rows"].items():
            settings = dict(settings)
            do, origin = settings.pop("do"), settings.pop("from", None)
            seeds = settings.pop("seeds", entry["seeds"])
            parents = _parents(rows, study_name, name, origin)
            rows[study_name, name] = {
                seed: Row(study, name, seed, do, settings, _of_seed(parents, seed))
                for seed in seeds
            }
    by_study: dict[str, list[Row]] = {}
    for (study_name, _), seeds in rows.items():
        by_study.setdefault(study_name, []).extend(seeds.values())
    return by_study


def _study(name: str, entry: Mapping[str, Any]) -> Study:
    return Study(
        name=name,
        title=entry["title"],
        config=ROOT / entry["config"],
        data=tuple(entry["data"]),
        calibration=entry["calibration"],
        training=tuple(entry["training"]),
        finetuning=entry["finetuning"],
    )


def _parents(rows: Mapping, study: str, name: str, origin: str | None) -> Mapping[int, Row] | None:
    if origin is None:
        return None
    place = tuple(origin.split("/")) if "/" in origin else (study, origin)
    if place not in rows:
        raise InputError(f"{ROWS}: {study}/{name}: there is no row {origin} before it")
    return rows[place]


def _of_seed(parents: Mapping[int, Row] | None, seed: int) -> Row | None:
    """The parent of the same seed, or the only one: a training may be one for several seeds."""
    if parents is None:
        return None
    return parents.get(seed) or next(iter(parents.values()))


def queue(rows: Mapping[str, list[Row]]) -> list[Row]:
    """All rows: the first seed of every study, and then the others, for whole tables soon."""
    return sorted((row for study in rows.values() for row in study), key=lambda row: row.seed)


def choose(rows: Mapping[str, list[Row]], names: list[str], seeds: list[int]) -> list[Row]:
    """The rows that somebody names, as ``study`` or ``study/row``.

    Raises:
        InputError: there is none of a name, or none with a seed.
    """
    chosen: list[Row] = []
    for name in names:
        study, _, row = name.partition("/")
        known = [x for x in rows.get(study, []) if row in ("", x.name)]
        found = [x for x in known if not seeds or x.seed in seeds]
        if not found:
            what = ", ".join(rows) if study not in rows else _names(rows[study])
            raise InputError(
                f"{name}: no such row with these seeds; one of {what}, seeds "
                f"{', '.join(map(str, sorted({x.seed for x in known}))) or 'of rows.yaml'}"
            )
        chosen += found
    return chosen


def _names(rows: list[Row]) -> str:
    return ", ".join(dict.fromkeys(row.name for row in rows))
