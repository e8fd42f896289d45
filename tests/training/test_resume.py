"""A run that was stopped and resumed gives the weights, bit for bit, of one that was not."""

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling import build_model

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.modeling import dense_config
from sparsedet.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
INPUT: {{MIN_SIZE_TRAIN: [64, 80, 96], MIN_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 6
  STEPS: [5]
  WARMUP_ITERS: 2
  BASE_LR: 0.01
  CHECKPOINT_PERIOD: 3
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=7, num_test=2, image_size=(128, 96))
    return folder


@pytest.fixture
def config(tmp_path, datasets, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


class Stop(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise KeyboardInterrupt


def train(config, folder, *opts, resume=False, stop=None):
    """Train in this process, up to the end or through the iteration ``stop``."""
    trainer = Trainer(load_config(str(config), [*opts, "OUTPUT_DIR", str(folder)]))
    trainer.resume_or_load(resume=resume)
    if stop is None:
        trainer.train()
    else:
        trainer.register_hooks([Stop(stop)])
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    return trainer


def state(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def assert_equal(a, b):
    """The same to the last bit, and momentum, too."""
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])
    momenta = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (a, b)]
    assert momenta[0] and all(
        torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"])
        for i in momenta[0]
    )


PLAIN = ()
AMP = ("SOLVER.AMP.ENABLED", "True")


@pytest.mark.parametrize(
    "before, after",
    [
        (PLAIN, PLAIN),
        (("DATALOADER.NUM_WORKERS", 2), ("DATALOADER.NUM_WORKERS", 2)),
        (("DATALOADER.NUM_WORKERS", 2), ("DATALOADER.NUM_WORKERS", 1)),
        (AMP, AMP),
        (("DATALOADER.ASPECT_RATIO_GROUPING", "False"),) * 2,
        (("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),) * 2,
        (("MODEL.VGG.NORM", "BN", "TEST.PRECISE_BN.ENABLED", "True", "TEST.EVAL_PERIOD", 2),) * 2,
    ],
)
def test_resumed_is_as_if_never_stopped(config, tmp_path, before, after):
    same = ("TEST.PRECISE_BN.NUM_ITER", 2, "MODEL.WEIGHTS", "")
    train(config, tmp_path / "whole", *before[:0], *after, *same)
    train(config, tmp_path / "resumed", *before, *same, stop=3)
    resumed = train(config, tmp_path / "resumed", *after, *same, resume=True)
    assert resumed.start_iter in (3, 4)
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "resumed"))
