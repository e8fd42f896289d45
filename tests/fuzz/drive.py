"""Give a reader changed files, one after the other, and count how they end."""

import contextlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .mutate import EDITS, mutate
from .readers import READERS

SECONDS = 120  # in which a file must end, however much else the machine does; see worker.py
STARTING = 600
TESTS = Path(__file__).parents[1]


def available(name: str) -> bool:
    return importlib.util.find_spec(READERS[name].needs) is not None


def fuzz(
    name: str, cases: int, worker: "Worker", keep: Path | None = None
) -> tuple[Counter, list[str]]:
    """How many cases ended how, and one line of each kind of failure; its files go to ``keep``."""
    reader, counts, failures = READERS[name], Counter(), {}
    contents = reader.files()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"case{reader.suffix}")
        if reader.beside:
            suffix, beside = reader.beside
            Path(folder, f"case{suffix}").write_bytes(beside())
        first = os.path.join(folder, f"first{reader.suffix}")
        Path(first).write_bytes(reader.pack(contents[0]))
        if reader.beside:
            shutil.copy(Path(folder, f"case{suffix}"), Path(folder, f"first{suffix}"))

        @seed(0)
        @settings(
            max_examples=cases, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.sampled_from(range(len(contents))), EDITS)
        def case(which, edits):
            content = reader.pack(mutate(contents[which], edits, reader.text))
            Path(path).write_bytes(content)
            kind, said = worker.read(name, path, first)
            counts[kind] += 1
            if kind in ("result", "refused"):
                return
            last = said.strip().splitlines()[-1] if said.strip() else ""
            if (kind, last[:40]) not in failures:
                failures[kind, last[:40]] = f"{name}: {kind}: {said.strip()}"
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    place = f"{''.join(filter(str.isalnum, name))}-{len(failures)}{reader.suffix}"
                    (keep / place).write_bytes(content)

        worker.read(name, first, first)  # what is wrong with the reader itself is told here
        case()
    return counts, list(failures.values())


class Worker:
    """A process that reads files, and is started again when it dies."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.start()

    def start(self) -> None:
        path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        self.ready = set()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder.name,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def read(self, name: str, path: str, first: str) -> tuple[str, str]:
        """How a file ended; ``first``, which has not been changed, is read before."""
        if name not in self.ready:
            self.ready.add(name)
            kind, said = self.answer(name, first, STARTING)
            if kind != "result":
                raise RuntimeError(f"{name}: the file that is not changed: {kind}: {said}")
        kind, said = self.answer(name, path, SECONDS)
        if kind in ("hang", "death"):
            self.process.kill()
            self.process.communicate()
            said = f"exit status {self.process.returncode}"
            self.start()
        return kind, said

    def answer(self, name: str, path: str, seconds: float) -> tuple[str, str]:
        with contextlib.suppress(BrokenPipeError):  # it has ended; so has what it says
            self.process.stdin.write(json.dumps([name, path]) + "\n")
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else None
        if line:
            return tuple(json.loads(line))
        return ("hang" if line is None else "death"), ""

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()
