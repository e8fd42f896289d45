"""What is to be run: the studies of ``rows.yaml``, their rows, and what each row needs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedet.errors import InputError
from sparsedet.yaml_files import read_yaml

from .rule import Rule

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ROWS = HERE / "rows.yaml"
DOINGS = ("train", "finetune", "scratch", "compress", "prune", "quantize")
"""What a row may do; :mod:`evidence.steps` has a function for each."""


@dataclass(frozen=True)
class Phase:
    """Of a training: what of the config it changes, and the rule by which it ends."""

    opts: Mapping[str, Any]
    rule: Rule


@dataclass(frozen=True, eq=False)
class Study:
    """One network on one data set: a table.

    Attributes:
        config: of the dense model.
        data: names of what :mod:`evidence.materials` finds: the data set, and weights to start
            from, if any.
        calibration: how many training images.
        training: of the dense model, phase by phase.
        finetuning: of a compact model; the dense one is trained as much longer by the same.
    """

    name: str
    title: str
    config: Path
    data: tuple[str, ...]
    calibration: int
    training: tuple[Phase, ...]
    finetuning: Phase


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
        InputError: a field is missing or of another kind; a row's parent does not stand before it.
    """
    rows: dict[tuple[str, str], dict[int, Row]] = {}
    studies = read_yaml(str(path)).get("studies")
    if not isinstance(studies, dict):
        raise InputError(f"{path}: no studies; see {ROWS.name} of the project")
    for name, entry in studies.items():
        try:
            _add_study(rows, name, entry)
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from None
        except KeyError as error:
            raise InputError(f"{path}: {name}: there is no {error.args[0]}") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: {name}: a field is of another kind: {error}") from None
    by_study: dict[str, list[Row]] = {}
    for (study, _), seeds in rows.items():
        by_study.setdefault(study, []).extend(seeds.values())
    return by_study


def _add_study(rows: dict, study_name: str, entry: Mapping[str, Any]) -> None:
    study = _study(study_name, entry)
    for name, settings in entry["rows"].items():
        settings = dict(settings)
        do, origin = settings.pop("do"), settings.pop("from", None)
        if do not in DOINGS:
            raise KeyError(f"way to {do}, as {name} asks for; one of {', '.join(DOINGS)}")
        if (origin is None) != (do == "train"):
            raise KeyError(f"model that {name} begins with: from is for all but train")
        parents = {} if origin is None else rows[_place(rows, study_name, origin)]
        rows[study_name, name] = {
            seed: Row(study, name, seed, do, settings, _of_seed(parents, seed))
            for seed in settings.pop("seeds", entry["seeds"])
        }


def _study(name: str, entry: Mapping[str, Any]) -> Study:
    return Study(
        name=name,
        title=entry["title"],
        config=ROOT / entry["config"],
        data=tuple(entry["data"]),
        calibration=entry["calibration"],
        training=tuple(map(_phase, entry["training"])),
        finetuning=_phase(entry["finetuning"]),
    )


def _phase(entry: Mapping[str, Any]) -> Phase:
    return Phase(dict(entry["opts"]), Rule(**entry["rule"]))


def _place(rows: Mapping, study: str, origin: str) -> tuple[str, str]:
    study, _, name = origin.rpartition("/") if "/" in origin else (study, "", origin)
    if (study, name) not in rows:
        raise KeyError(f"row {origin} before the one that begins with it")
    return study, name


def _of_seed(parents: Mapping[int, Row], seed: int) -> Row | None:
    """The parent of the same seed, or the only one: a training may be one for several seeds."""
    return parents.get(seed) or next(iter(parents.values()), None)


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
