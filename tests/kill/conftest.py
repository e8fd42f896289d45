"""Real commands in processes of their own, which are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsedet.data import generate_shapes

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
INPUT: {{MIN_SIZE_TRAIN: [64, 80, 96], MIN_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 1000000
  STEPS: []
  WARMUP_ITERS: 2
  BASE_LR: 0.001
  CHECKPOINT_PERIOD: 2
DATALOADER: {{NUM_WORKERS: 0}}
TEST: {{EVAL_PERIOD: 0}}
"""


class Command:
    """A command in a session of its own, by which its processes are found when it is gone."""

    def __init__(self, errors: Path, *arguments, launcher=()):
        self.errors = errors
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self.process = subprocess.Popen(
            [sys.executable, *map(str, (*launcher, *arguments))],
            cwd=errors.parent,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self.errors.open("w"),
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        """Those that are alive, the command itself first."""
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                text = Path("/proc", pid, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _, _, session = text.rpartition(")")[2].split()[:4]
            if int(session) == self.process.pid and state not in "ZX":
                found.append(int(pid))
        return sorted(found)

    def named(self, word: str) -> list[int]:
        """Processes whose command line has the word."""
        return [p for p in self.processes() if word in Path(f"/proc/{p}/cmdline").read_text()]

    def wait_for(self, path: Path, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def assert_all_end(self, seconds: float = 10) -> int:
        """Wait until no process is left: the exit status."""
        deadline = time.monotonic() + seconds
        while self.processes():
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.05)
        return self.process.wait()

    def error_lines(self) -> list[str]:
        lines = self.errors.read_text().splitlines()
        assert not any("Traceback" in line for line in lines), "\n".join(lines)
        return [line for line in lines if line.startswith("error: ")]


@pytest.fixture
def start(tmp_path):
    """Start ``tools/NAME ARGUMENTS``, which is killed after the test if it is still there."""
    started = []

    def start_(name, *arguments, launcher=()):
        errors = tmp_path / f"errors{len(started)}.txt"
        command = Command(errors, ROOT / "tools" / name, *arguments, launcher=launcher)
        started.append(command)
        return command

    yield start_
    for command in started:
        for pid in command.processes():
            os.kill(pid, signal.SIGKILL)
        command.process.wait()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=7, num_test=2, image_size=(128, 96))
    return folder


@pytest.fixture
def config(tmp_path, shapes, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path
