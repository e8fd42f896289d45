"""What runs a model and its layers where they are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from .task import Task


class Engine:
    """PyTorch, as it is. A subclass runs what it makes of a module elsewhere.

    Attributes:
        name: for the reader of a result.
    """

    name = "PyTorch"

    def layer(
        self, layer: nn.Module, inputs: Sequence[torch.Tensor]
    ) -> tuple[Callable[[Any], Any], list[Any]]:
        """What runs the layer, and the inputs in the form in which it takes them."""
        return layer, list(inputs)

    def frame(
        self, layer: nn.Module, inputs: Sequence[torch.Tensor]
    ) -> tuple[Callable[[Any], Any], list[Any]] | None:
        """What runs with such a layer on such inputs without being part of it; None: nothing."""
        return None

    def model(self, model: nn.Module, task: Task) -> Callable[[Any], Any]:
        """What runs the whole model on a batch of the task."""
        return partial(task.forward, model)


PYTORCH = Engine()
