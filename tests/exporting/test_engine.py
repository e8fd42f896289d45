"""Layers timed in two engines, in a process of their own.

After the cases, which load graph after graph in both engines beside torch, a process that forked
crashed (SIGSEGV in a thread of the engines): docs/reliability.md, "Engines beside PyTorch".
"""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("engine_cases.py")


def test_engine_cases():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    run = subprocess.run([*command, str(CASES)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout
