"""The order and the state in which models are timed, and what a time depends on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsedet import timing
from sparsedet.latency import compare_latency
from sparsedet.timing import Laps, environment, take_turns

ROOT = Path(__file__).parents[1]


def test_laps(monkeypatch):
    times = iter([1.0, 3.0, 7.5])
    monkeypatch.setattr(timing, "now", lambda: next(times))
    laps = Laps()
    laps.end("statistics")
    laps.end("fit")
    assert laps.seconds == {"statistics": 2.0, "fit": 4.5}


@pytest.mark.parametrize("seconds, rounds", [(0, 3), (2, 3), (15, 5), (16, 6)])
def test_turns(monkeypatch, seconds, rounds):
    """On a clock that the measurements themselves move: three seconds in a round."""
    clock, order = [0.0], []
    monkeypatch.setattr(timing, "now", lambda: clock[0])

    def measurement(name, duration):
        def measure():
            order.append(name)
            clock[0] += duration
            return len(order)

        return measure

    turns = take_turns([measurement("a", 1), measurement("b", 2)], 3, seconds, warmup=2)
    assert list(turns) == [[5 + 2 * i, 6 + 2 * i] for i in range(rounds)]
    assert order == ["a", "b"] * (2 + rounds)


def test_models_take_turns():
    calls = []
    models = {
        "fast": lambda x: calls.append(("fast", x)),
        "slow": lambda x: calls.append(("slow", x)) or time.sleep(0.01),
    }
    result = compare_latency(models, inputs=[1, 2], rounds=3, warmup=1)
    assert calls == [("fast", 1), ("slow", 1), ("fast", 2), ("slow", 2)] * 4
    assert list(result) == ["fast", "slow"]
    assert result["slow"].median >= 10 > result["fast"].median
    assert result["slow"].p10 <= result["slow"].median <= result["slow"].p90


def test_modules_are_timed_as_in_inference():
    class Probe(nn.Module):
        def forward(self, x):
            states.append((self.training, torch.is_inference_mode_enabled()))

    states = []
    probe = Probe().train()
    compare_latency({"probe": probe}, [None], rounds=1, warmup=0)
    assert states == [(False, True)]
    assert probe.training


def test_environment_names_what_matters():
    import detectron2  # noqa: F401
    import torchvision  # noqa: F401

    facts = environment()
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == str(torch.get_num_threads())
    assert {"python", "torchvision", "detectron2", "cpu"} <= facts.keys()
    assert all(facts.values())


@pytest.mark.parametrize("absent", [("detectron2",), ("torch", "torchvision", "detectron2")])
def test_environment_where_libraries_are_absent(absent):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); "
        "from sparsedet.timing import environment; "
        "'torch' in sys.modules or __import__('torch'); print(*environment())"
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    named = done.stdout.split()
    assert {"python", "cpu"} <= set(named) and not set(named) & set(absent)
    assert ("threads" in named) == ("torch" in named) == ("torch" not in absent)
