"""Compress a trained model so that each layer puts out what its dense twin did."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..hooks import evaluating
from .fit import DenseFit, Fit, layer_fit
from .links import Link
from .observe import observe
from .plan import LayerPlan, Plan, compact_weights, used_again
from .positions import check_positions
from .recording import Recording
from .replay import Replay
from .result import LayerResult, Result
from .sensitivity import Sensitivity
from .surgery import compact_twin, planned_layers, replace_modules, sparsify_
from .survey import Survey, count_parameters
from .task import Task
from .widths import narrow_layers, with_readers

logger = logging.getLogger(__name__)


@torch.no_grad()
def calibrate_(
    model: nn.Module,
    plan: Plan,
    task: Task,
    sensitivities: Mapping[str, Sensitivity] | None = None,
    progress: bool = False,
    links: Mapping[str, Link] | None = None,
    recording: Recording | None = None,
) -> Result:
    """Like :func:`sparsify_`, but each compact layer is fitted to the outputs of the dense model.

    Asymmetric reconstruction (Zhang et al., arXiv 1505.06798): one layer after another, in the
    order in which they run, learns to give the dense network's outputs from the inputs that it
    really gets, out of layers that are compressed already. All is in closed form, without
    gradients. What is kept: every layer's dense outputs at a sample of positions, and for one layer
    at a time the covariance of the patches there. The layers that give the answers stay dense, and
    their weights are fitted in the same way. A layer that becomes narrower gives the dense outputs
    that are kept, and its reader all of its own from these; see :class:`Narrowing`.

    The model runs over all batches once, and again for each layer, then only from the layers before
    it, whose outputs are held, as far as that layer; see :class:`Replay`.

    Args:
        model: it runs in eval mode, and keeps the modes that it had.
        task: what to calibrate on, and which layers give the answers.
        sensitivities: of layers by name; where there is none, all outputs count alike.
        progress: show a bar.
        links: of the layers that become narrower, where :func:`with_readers` has found them.
        recording: of the dense model on this task, if there is one; it is used up.

    Raises:
        InputError: the plan does not fit the model, or activations are not finite. The model is
            then as it was, and also after an interruption.
        ValueError: ``task.forward`` does not call a layer in the same way each time.
    """
    if links is None:
        plan, links = with_readers(plan, model, task)
    layers = planned_layers(model, [*plan, *task.answers(model)])
    sensitivities = sensitivities or {}
    parameters = count_parameters(model)
    modes = {module: module.training for module in model.modules()}
    with evaluating(model):
        survey = task.survey(model)
        check_not_read(survey, layers)
        check_positions(model, layers, task)
        narrow = narrow_layers(model, plan, links, task, sensitivities)
        starts = {**layers, **narrow.starts}
        twins = {
            name: compact_twin(start, plan.get(name, LayerPlan()), project=True)
            for name, start in starts.items()
        }
        metrics = {**sensitivities, **narrow.sensitivities(sensitivities)}
        fits = {
            name: layer_fit(starts[name], twins[name], metrics.get(name, Sensitivity()))
            for name in survey.outputs
            if name in layers
        }
        fits = {name: fit for name, fit in fits.items() if fit}
        dense = [name for name, fit in fits.items() if isinstance(fit, DenseFit)]
        if recording is None or not recording.serves(dense):
            outputs = {name: survey.outputs[name] for name in fits}
            recording = Recording(layers, dense, outputs, len(task.batches))
        passes = _Passes(model, layers, fits, survey, task, recording, narrow.kept, progress)
        narrower = {layers[name]: start for name, start in narrow.starts.items()}
        narrower |= narrow.channelwise
        try:
            passes.run_dense()
            # Those to come are narrow already, so that the model runs after each fit.
            replace_modules(model, narrower)
            passes.layers = starts
            for name in fits:
                passes.run_up_to(name)
                replace_modules(model, {starts[name]: twins[name]})
            replace_modules(model, {starts[name]: twins[name] for name in plan})
        except BaseException:
            replace_modules(model, {twins[name]: starts[name] for name in twins})
            replace_modules(model, {new: old for old, new in narrower.items()})
            raise
        finally:
            passes.bar.close()
    for old, new in [*narrow.channelwise.items(), *((layers[name], twins[name]) for name in twins)]:
        _take_modes(new, old, modes)
    results = {
        name: _fitted_result(name, layers[name], plan, survey, fits)
        for name in _in_order(plan, survey)
    }
    return _result(results, parameters, model, survey, task)


@torch.no_grad()
def project_(model: nn.Module, plan: Plan, task: Task) -> Result:
    """:func:`sparsify_` from the weights alone, with a result that counts and knows no errors.

    For comparison with :func:`calibrate_`.
    """
    layers = planned_layers(model, plan)
    parameters = count_parameters(model)
    survey = task.survey(model)
    check_not_read(survey, layers)
    sparsify_(model, plan)
    results = {}
    for name in _in_order(plan, survey):
        results[name] = _layer_result(name, layers[name], plan, survey)
    return _result(results, parameters, model, survey, task)


def _take_modes(new: nn.Module, old: nn.Module, modes: Mapping[nn.Module, bool]) -> None:
    """The training modes of a module, and of a norm or activation inside of it."""
    new.train(modes[old])
    inside = dict(new.named_modules())
    for name, module in old.named_modules():
        if name in inside:
            inside[name].training = modes[module]


def check_not_read(survey: Survey, layers: Collection[str]) -> None:
    """Raises InputError where something else than such a layer reads its weights."""
    for name in sorted(survey.read.intersection(layers)):
        raise InputError(
            f"{name}: something else than the layer itself reads its weights, so it cannot be "
            "replaced: leave it out"
        )


class _Passes:
    """Runs of the model, and what they collect."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        fits: Mapping[str, Fit],
        survey: Survey,
        task: Task,
        recording: Recording,
        kept: Mapping[str, torch.Tensor],
        progress: bool,
    ):
        self.model, self.task, batches = model, task, task.batches
        self.layers, self.fits, self.recording, self.kept = layers, fits, recording, kept
        self.replay = Replay(model, batches, task.forward)
        self.dense_work = 0.0 if recording.done else survey.multiply_adds
        # Of a layer: what runs between the layer before and it, and the fit.
        before = [0.0, *(survey.before[name] for name in fits)]
        self.work = {
            name: max(0.0, after - start) + fits[name].work / len(batches)
            for name, start, after in zip(fits, before, before[1:])
        }
        self.bar = tqdm(
            desc="calibration",
            total=len(batches) * (self.dense_work + sum(self.work.values())),
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}",
            smoothing=0,
            disable=not progress,
        )

    def run_dense(self) -> None:
        """Collect the outputs that the compact layers are to give, unless that is done."""
        if self.recording.done:
            return
        visits = self.recording.visits({}, 1)
        for _ in observe(self.model, self.task.batches, self.task.forward, visits):
            self.bar.update(self.dense_work)

    def run_up_to(self, name: str) -> None:
        """Fit one layer."""
        fit, targets = self.fits[name], self.recording.calls.pop(name)
        kept = self.kept.get(name, slice(None))
        self.bar.set_postfix_str(name)
        seen = 0

        def collect(batch, call, x):
            nonlocal seen
            count, patches = self.recording.patches(name, self.layers[name], batch, call, x)
            expected = targets[batch]
            if call >= len(expected) or expected[call][0] != count:
                raise ValueError(_not_the_same(name))
            fit.add(patches, expected[call][1][:, kept])
            seen += 1

        calls = [len(expected) for expected in targets]
        for _ in self.replay.up_to(self.layers[name], calls, collect):
            self.bar.update(self.work[name])
        if seen != sum(len(calls) for calls in targets):
            raise ValueError(_not_the_same(name))
        if fit.samples:
            fit.solve()


def _not_the_same(name: str) -> str:
    return (
        f"{name} is called differently in the dense and in the compressed model: forward must make "
        "the same calls with inputs of equal sizes (a box head needs the same proposals)"
    )


def _in_order(plan: Plan, survey: Survey) -> list[str]:
    """The planned layers, in the order in which they run; those that never do come last."""
    called = [name for name in survey.outputs if name in plan]
    return list(dict.fromkeys([*called, *plan]))


def _layer_result(name: str, layer: nn.Module, plan: Plan, survey: Survey) -> LayerResult:
    """What is counted of a layer."""
    return LayerResult(
        plan[name],
        (layer.weight.numel(), compact_weights(layer, plan[name])),
        survey.outputs.get(name, 0.0),
        again=used_again(layer, plan[name]),
    )


def _fitted_result(
    name: str, layer: nn.Module, plan: Plan, survey: Survey, fits: Mapping[str, Fit]
) -> LayerResult:
    fit, note = fits.get(name), ""
    if name not in survey.outputs:
        note = "from its weights alone: the calibration never calls it"
    elif not fit.samples:
        note = "from its weights alone: it has no outputs in the calibration"
    elif fit.samples < fit.size:
        note = f"held to its dense weights: {fit.samples} samples of {fit.size} numbers each"
    if note:
        logger.warning("%s: %s", name, note)
    return replace(
        _layer_result(name, layer, plan, survey),
        error=fit and fit.error,
        error_alone=fit and fit.error_alone,
        samples=fit.samples if fit else 0,
        note=note,
    )


def _result(
    layers: dict[str, LayerResult], parameters: int, model: nn.Module, survey: Survey, task: Task
) -> Result:
    saved = sum(before - after for r in layers.values() for before, after in [r.multiply_adds])
    return Result(
        layers,
        (parameters, count_parameters(model)),
        (survey.multiply_adds, survey.multiply_adds - saved),
        model,
        task,
    )
