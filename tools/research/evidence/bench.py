"""Rows, run one after another; what was done is not done again, and what was begun goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import torch
from detectron2.config import CfgNode

import sparsedet
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.files import locked, replacing
from sparsedet.timing import environment

from .materials import Materials
from .records import FOLDER, path_of, write_record
from .steps import STEPS, Outcome
from .studies import ROOT, Row

MODEL = "model.yaml"
"""The config of a row's model, whose MODEL.WEIGHTS are the row's: there when the row is done."""


class Bench:
    """A folder of work in which rows are run.

    Args:
        work: for checkpoints and all that no record holds; some gigabytes.
        materials: where the data is.
        records: where records go.
    """

    def __init__(self, work: Path, materials: Materials, records: Path = FOLDER):
        self.work, self.materials, self.records = work, materials, records
        self.commit = commit()  # of the code that is loaded, whatever comes to the files

    def run(self, rows: Iterable[Row]) -> list[str]:
        """Run rows, and before each what it needs; a row that fails does not stop the others.

        Returns:
            a line for each that could not be run.
        """
        failures: dict[Row, str] = {}
        with locked(str(self.work)):
            for row in rows:
                for step in row.lineage():
                    if step in failures:
                        break
                    try:
                        self._run(step)
                    except InputError as error:
                        failures[step] = f"{step}: {error}"
                        tell(failures[step])
        return list(failures.values())

    def _run(self, row: Row) -> None:
        folder = self.work / row.folder
        if (folder / MODEL).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        tell(f"{row} ...")
        with _clock(folder) as clock:
            cfg = self._start(row)
            torch.manual_seed(row.seed)
            outcome = STEPS[row.do](row, cfg, folder)
        write_record(path_of(row, self.records), self._record(row, outcome, clock))
        _write_config(outcome.cfg, folder / MODEL)
        numbers = outcome.numbers
        tell(f"{row}: AP50 {numbers['AP50']:.2f}, {numbers['params'] / 1e6:.2f} M parameters")

    def _start(self, row: Row) -> CfgNode:
        """The config that the row begins with: the parent's model, or the study's."""
        if row.parent is None:
            cfg = self.materials.config(row.study)
        else:
            cfg = load_config(str(self.work / row.parent.folder / MODEL))
        cfg.SEED = row.seed
        cfg.DATALOADER.NUM_WORKERS = 0
        return cfg

    def _record(self, row: Row, outcome: Outcome, clock: _clock) -> dict:
        return {
            "row": f"{row.study.name}/{row.name}",
            "seed": row.seed,
            "command": row.command,
            "commit": self.commit,
            "versions": {"sparsedet": sparsedet.__version__, **environment()},
            "date": date.today().isoformat(),
            "seconds": clock.seconds,
            "cpu_seconds": clock.cpu_seconds,
            "begun": clock.begun,
            "data": self.materials.facts(outcome.cfg, row.study),
            "numbers": outcome.numbers,
            **outcome.facts,
        }


def tell(line: str) -> None:
    """On stderr, for what pycocotools prints goes elsewhere."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


class _clock:
    """How long a row takes, over all attempts; what a kill cuts short does not count."""

    FILE = "clock.json"

    def __init__(self, folder: Path):
        self.file = folder / self.FILE
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.seconds = known.get("seconds", 0.0)
        self.cpu_seconds = known.get("cpu_seconds", 0.0)
        self.begun = known.get("begun", 0) + 1

    def __enter__(self) -> _clock:
        self._write()
        self.start = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = round(self.seconds + time.monotonic() - self.start[0], 1)
        self.cpu_seconds = round(self.cpu_seconds + time.process_time() - self.start[1], 1)
        self._write()

    def _write(self) -> None:
        facts = {k: getattr(self, k) for k in ("seconds", "cpu_seconds", "begun")}
        with replacing(str(self.file)) as temporary:
            Path(temporary).write_text(json.dumps(facts))


def _write_config(cfg: CfgNode, path: Path) -> None:
    with replacing(str(path)) as temporary:
        Path(temporary).write_text(cfg.dump(), encoding="utf-8")


def commit() -> str:
    """Of this project, with a mark where files were changed since."""
    found = _git("rev-parse", "HEAD")
    if found is None:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "sparsedet", "tools")
    return found + (" and changes" if changed else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
