"""Memory that is freed is kept, in a process that asks for it."""

import os
import subprocess
import sys

import pytest

from sparsedet.memory import keep_freed_memory

FAULTS = """
import resource
import torch
from torch import nn
from sparsedet.memory import keep_freed_memory

print(keep_freed_memory())
model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU())  # 64 MB each
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        model(torch.ones(1, 3, 512, 512))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(**variables):
    environment = {name: x for name, x in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, *faults = found.stdout.split()
    return kept == "True", list(map(int, faults))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_pages_are_cleared_once():
    kept, (first, *_, last) = _run()
    if not kept:
        pytest.skip("not glibc's malloc")
    assert last < first / 20


def test_malloc_as_the_user_has_set_it():
    assert _run(MALLOC_ARENA_MAX="2")[0] is False
    assert _run(GLIBC_TUNABLES="glibc.malloc.arena_max=2")[0] is False


def test_a_library_without_the_setting(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
