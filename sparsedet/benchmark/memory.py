"""How much memory a program needs."""

from __future__ import annotations

import subprocess
import sys

from ..errors import InputError

# On Linux, ru_maxrss of a child is at least what its parent held when it started the child.
_REPORT = """
import resource, sys
if sys.platform == "linux":
    with open("/proc/self/status") as lines:
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("peak", peak)
"""


def peak_rss_mb(script: str, *arguments: str) -> float:
    """Peak resident memory of a fresh Python that runs ``script``, in millions of bytes.

    Imports and loading are in it, as they are for a user.

    Args:
        arguments: ``sys.argv[1:]`` of the script.

    Raises:
        InputError: the script fails, for instance for lack of memory.
    """
    command = [sys.executable, "-c", script + _REPORT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    name, _, peak = (done.stdout.splitlines() or [""])[-1].partition(" ")
    if done.returncode or name != "peak":
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise InputError(f"measuring memory in a process of its own failed: {reason}")
    return int(peak) / 1e6
