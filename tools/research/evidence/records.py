"""What came of a row, in a file of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsedet.errors import InputError
from sparsedet.files import replacing
from sparsedet.json_files import read_json

from .studies import ROOT, Row

SCHEMA = 1
"""Raise it when a field changes its meaning: older records are then refused."""

LARGEST = 1e300
"""Of a number, so that every one can be computed with, and is finite."""

FOLDER = ROOT / "docs" / "records"
FIELDS = ("row", "seed", "command", "commit", "versions", "date", "seconds", "data", "numbers")
NUMBERS = ("params", "multiply_adds", "AP", "AP50", "voc_mAP")
ACCURACIES = {
    "AP50": "AP50",
    "AP": "COCO AP",
    "voc_mAP": "VOC mAP",
    "mask_AP50": "mask AP50",
    "mask_AP": "mask AP",
}
"""What a number is called in tables, and by ``sparsedet evaluate``; not all models have masks."""


def path_of(row: Row, folder: Path = FOLDER) -> Path:
    return folder / f"{row.folder}.json"


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path)) as temporary:
        text = json.dumps({"schema": SCHEMA, **_finite(record)}, indent=1, allow_nan=False)
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: Path) -> dict[str, Any] | None:
    """None where there is none.

    Raises:
        InputError: the file is no record, or one of another schema.
    """
    if not path.exists():
        return None
    try:
        record = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; remove it") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise InputError(
            f"{path}: a record of schema {found}, and this version reads {SCHEMA}; remove it and "
            "run its row again"
        )
    missing = [field for field in FIELDS if field not in record]
    numbers = record.get("numbers")
    if not isinstance(numbers, dict):
        missing.append("numbers")
    else:
        missing += [f"numbers.{name}" for name in NUMBERS if not _is_number(numbers.get(name))]
    if missing:
        raise InputError(f"{path}: no {missing[0]}; remove it and run its row again")
    return record


def _is_number(value: Any) -> bool:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return known and abs(value) < LARGEST


def read_records(rows: Iterable[Row], folder: Path = FOLDER) -> dict[Row, dict[str, Any]]:
    """Those of the rows that were run.

    Raises:
        InputError: as :func:`read_record`; a record that is of another row than its place says.
    """
    found = {}
    for row in rows:
        record = read_record(path_of(row, folder))
        if record is None:
            continue
        if (record["row"], record["seed"]) != (f"{row.study.name}/{row.name}", row.seed):
            raise InputError(f"{path_of(row, folder)}: is of {record['row']}, not of {row}")
        found[row] = record
    return found
