"""What compression has to know of a model, beside its layers."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import nn

from ..compat import tree_map
from ..errors import InputError
from ..files import replacing
from ..hooks import attached, evaluating
from .candidates import dense_layers
from .observe import Forward, call_model
from .sensitivity import Sensitivity, output_sensitivities
from .survey import Survey

if TYPE_CHECKING:
    from .result import Result

DIFFERENTIATED = 6
"""Sensitivities come from every sixth batch: there are hundreds of positions in each."""


_Surveys = WeakKeyDictionary[nn.Module, tuple[list["ref[nn.Module]"], Survey]]


class Task:
    """Inputs to calibrate on, how the model runs on them, and which layers give its answers.

    A subclass serves a kind of models of which more is known; :class:`sparsedet.DetectionTask` is
    one.

    Args:
        batches: what ``forward`` takes; all are held in memory.
        forward: runs the model on one batch; by default the batch is its one argument.
        answers: names of the layers whose outputs the model is for. They stay dense, for every
            error in them counts in full, and errors elsewhere count by what they do to them. With
            none, all outputs of all layers count alike.
        fixed: names of the modules that choose at which positions later layers look, as a proposal
            generator does. What they give in the first run on a batch after :meth:`start` is
            recorded, and given again in later runs, of whatever the model has become or of a copy.

    Raises:
        InputError: there are no batches.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        forward: Forward = call_model,
        answers: Sequence[str] = (),
        fixed: Sequence[str] = (),
    ):
        self.batches = list(batches)
        if not self.batches:
            raise InputError("compression needs inputs to calibrate on, and there are none")
        self._forward, self._answers, self._fixed = forward, list(answers), list(fixed)
        self._recorded: dict[int, dict[tuple[int, int], Any]] = {}  # of a batch, by step and call
        self._surveys: _Surveys = WeakKeyDictionary()

    def start(self, model: nn.Module) -> None:
        """Called once with each dense model, before anything else: forget the others."""
        self._recorded.clear()
        self._surveys.clear()
        if self.deployed is not self:
            self.deployed.start(model)

    def finish(self, model: nn.Module) -> None:
        """Called once with each compact model, when all its layers are in place."""

    @property
    def deployed(self) -> Task:
        """The same task on inputs as the compact model will get them, perhaps on fewer.

        What a model costs is counted and timed there. Here it is the task itself.
        """
        return self

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on one of ``batches``, what is fixed as it is recorded for it.

        All in all, it must make the same calls each time, whatever its layers have become.
        """
        recorded = self._recorded.setdefault(id(batch), {})
        calls: Counter[int] = Counter()
        steps = self.fixed(model)

        def fix(module: nn.Module, args: Any, output: Any) -> Any:
            step = steps.index(module)
            calls[step] += 1
            # Detached: what is recorded must not hold a graph of gradients.
            return recorded.setdefault((step, calls[step]), _detached(output))

        with attached(step.register_forward_hook(fix) for step in steps):
            return self._forward(model, batch)

    def fixed(self, model: nn.Module) -> list[nn.Module]:
        """The modules whose outputs are fixed, always in the same order.

        Raises:
            InputError: a name is not that of a module.
        """
        modules = dict(model.named_modules())
        for name in self._fixed:
            if name not in modules:
                raise InputError(f"fixed: {name!r} is not a module of the model")
        return [modules[name] for name in self._fixed]

    def answers(self, model: nn.Module) -> list[str]:
        """Names of the dense layers that give the answers.

        Raises:
            InputError: a name is not that of a dense layer.
        """
        layers = dense_layers(model)
        for name in self._answers:
            if name not in layers:
                raise InputError(f"answers: {name!r} is not a dense layer of the model")
        return self._answers

    def survey(self, model: nn.Module) -> Survey:
        """How a model uses its dense layers; looked at once, until :meth:`start` or it changes."""
        modules, survey = self._surveys.get(model, ([], None))
        if survey is None or [module() for module in modules] != list(model.modules()):
            with evaluating(model):
                survey = Survey(model, dense_layers(model), self.batches, self.forward)
            self._surveys[model] = list(map(ref, model.modules())), survey
        return survey

    def sensitivities(self, model: nn.Module, progress: bool = False) -> dict[str, Sensitivity]:
        """For each layer of the dense model, what its errors do to the answers."""
        layers = dense_layers(model)
        answers = {name: layers[name] for name in self.answers(model)}
        if not answers:
            return {}
        inner = {name: layer for name, layer in layers.items() if name not in answers}
        some = self.batches[::DIFFERENTIATED]
        return output_sensitivities(
            model, inner, answers.values(), some, self.forward, progress=progress
        )

    def on(self, batches: Iterable[Any]) -> Task:
        """The same on other batches, of which nothing is recorded or known yet."""
        other = copy.copy(self)
        other.batches, other._recorded = list(batches), {}
        other._surveys = WeakKeyDictionary()
        vars(other).pop("deployed", None)  # what a subclass keeps is of these batches
        return other

    def pictures(self, models: Mapping[str, nn.Module]) -> list[np.ndarray]:
        """What each of the models finds in a few inputs, side by side, (H, W, 3) uint8, BGR."""
        return []

    def save(self, result: Result, folder: str, output: str) -> None:
        """Write the compact model to ``folder``, which is at ``output`` when all is written."""
        with replacing(os.path.join(folder, "model.pth")) as temporary:
            torch.save({"model": result.model.state_dict()}, temporary)


def _detached(output: Any) -> Any:
    return tree_map(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, output)
