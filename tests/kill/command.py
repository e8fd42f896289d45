"""Commands in processes of their own, which are killed."""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What starts a command has imported the libraries once, which takes most of a command's time.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["sparsedet.cli.train", "sparsedet.cli.compress"])


def _run(errors, arguments, environment, ignore_interrupts):
    multiprocessing.set_start_method(None, force=True)  # as in a command
    os.setsid()
    os.chdir(errors.parent)
    for number, path in enumerate((os.devnull, os.devnull, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    # Whatever these tests were started from: what runs in the background may ignore them.
    signal.signal(
        signal.SIGINT, signal.SIG_IGN if ignore_interrupts else signal.default_int_handler
    )
    os.environ.update(environment)
    sys.argv = arguments
    if arguments[0].endswith(".py"):
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


class Command:
    """A script or module with its arguments, in a session of its own.

    By the session its processes are found when it is gone.
    """

    def __init__(self, errors: Path, *arguments, ignore_interrupts=False):
        self.errors = errors
        own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        self.process = SERVER.Process(
            target=_run,
            args=(errors, list(map(str, arguments)), {**os.environ, **own}, ignore_interrupts),
        )
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, seconds: float = 300) -> int:
        """The exit status."""
        self.process.join(seconds)
        return self.process.exitcode

    def processes(self) -> list[int]:
        """Those that are alive, the command itself first."""
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                text = Path("/proc", pid, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _, _, session = text.rpartition(")")[2].split()[:4]
            if int(session) == self.pid and state not in "ZX":
                found.append(int(pid))
        return sorted(found)

    def wait_for(self, path: Path, seconds: float = 300) -> None:
        """Until there is something at the path."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert self.process.is_alive(), self.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def all_end(self, seconds: float = 10) -> int:
        """Wait until no process is left: the exit status."""
        deadline = time.monotonic() + seconds
        while self.processes():
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.05)
        return self.wait()

    def error_lines(self) -> list[str]:
        text = self.errors.read_text()
        assert "Traceback" not in text, text
        return [line for line in text.splitlines() if line.startswith("error: ")]
