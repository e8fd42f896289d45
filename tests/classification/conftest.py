"""A small ImageNet-style folder, a config that trains on it, and the model of that."""

import numpy as np
import pytest
from PIL import Image
from torch import nn

from sparsedet.model_zoo import get_config_file
from sparsedet.modeling.networks import OWN


def small_cnn(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


OWN["small_cnn"] = small_cnn


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Noise that is brightest in one channel: 6 pictures a class to train on, 3 to test."""
    root = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 128, (40 + i, 48, 3), dtype=np.uint8)
                pixels[:, :, channel] += 100
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def config_text(folder, tmp_path):
    """The yaml of a small classifier of it."""
    entry = f"{{format: folder, root: {folder}, split: "
    return f"""
_BASE_: {get_config_file("Base-Classifier.yaml")}
MODEL:
  DEVICE: cpu
  CLASSIFIER: {{NAME: small_cnn, NUM_CLASSES: 3, SIZE: 32, LEAST_AREA: 0.5}}
INPUT: {{MIN_SIZE_TEST: 36}}
DATASETS:
  TRAIN: [colours_train]
  TEST: [colours_val]
  REGISTER:
    colours_train: {entry}train}}
    colours_val: {entry}val}}
SOLVER:
  IMS_PER_BATCH: 6
  BASE_LR: 0.05
  MAX_ITER: 6
  STEPS: []
  WARMUP_ITERS: 0
  CHECKPOINT_PERIOD: 3
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
SEED: 1
OUTPUT_DIR: {tmp_path / "output"}
"""


@pytest.fixture
def config(config_text, tmp_path):
    path = tmp_path / "classifier.yaml"
    path.write_text(config_text)
    return path
