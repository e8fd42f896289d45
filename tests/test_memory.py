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


@pytest.fixture
def unset(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_pages_are_cleared_once(unset):
    command = [sys.executable, "-c", FAULTS]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, first, *_, last = found.stdout.split()
    if kept == "False":
        pytest.skip("not glibc's malloc")
    assert int(last) < int(first) / 20


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_malloc_as_the_user_has_set_it(unset, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr("ctypes.CDLL", None)  # nobody asks for the library
    assert keep_freed_memory() is False


def test_a_library_without_the_setting(unset, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
