"""The few lines that the tools share."""

from ..cli import run
from .launch import launch
from .predictor import Predictor
from .setup import setup
from .trainer import Trainer

__all__ = ["Predictor", "Trainer", "launch", "run", "setup"]
