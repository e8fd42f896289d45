"""What the tests of killed commands share."""

import os
import signal

import pytest
from kill.command import ROOT, Command

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


@pytest.fixture
def start(tmp_path):
    """Start ``tools/NAME ARGUMENTS``, which is killed after the test if it is still there."""
    started = []

    def start_(name, *arguments, launcher=(), **options):
        errors = tmp_path / f"errors{len(started)}.txt"
        tool = ROOT / "tools" / name
        started.append(Command(errors, *launcher, tool, *arguments, **options))
        return started[-1]

    yield start_
    for command in started:
        for pid in command.processes():
            os.kill(pid, signal.SIGKILL)
        command.wait()


@pytest.fixture
def config(write_config):
    return write_config(CONFIG)
