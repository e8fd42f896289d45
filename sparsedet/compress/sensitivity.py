"""How errors in a layer's outputs count: by what they change in the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..hooks import attached, evaluating
from .candidates import KINDS, left_alone
from .observe import Forward, call_model

FLOOR = 0.1
"""What a direction counts at least, as a share of the mean. The answers hardly depend on many
directions, but they do on other images, and after fine-tuning."""


class Sensitivity:
    """Errors e of C outputs count as ``|R^T e|^2``; in coordinates ``R^T y`` all count alike.

    Args:
        matrix: (C, C), R R^T up to a factor; None if all outputs count alike as they are.
        known: False where they do so only as nothing tells how they count.
    """

    def __init__(self, matrix: torch.Tensor | None = None, known: bool = True):
        self.root, self.known = None, known
        if matrix is not None:
            matrix = matrix.double() / matrix.diagonal().mean()
            self.root = torch.linalg.cholesky(matrix + FLOOR * torch.eye(len(matrix)).to(matrix))

    def split(self, groups: int) -> list[Sensitivity]:
        """Of equal parts of the outputs, each by itself."""
        if groups == 1 or self.root is None:
            return [self] * groups
        return [self.narrow(rows) for rows in torch.arange(len(self.root)).chunk(groups)]

    def narrow(self, kept: torch.Tensor) -> Sensitivity:
        """Of some of the outputs, where there are no others."""
        part = Sensitivity()
        if self.root is not None:
            rows = self.root[kept.to(self.root.device)]
            part.root = torch.linalg.cholesky(rows @ rows.T)
        return part

    def weigh(self, outputs: torch.Tensor) -> torch.Tensor:
        """``R^T y`` of (C,) or (C, n)."""
        return outputs if self.root is None else self.root.T.to(outputs) @ outputs

    def unweigh(self, outputs: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`weigh`, in float64."""
        if self.root is None:
            return outputs
        columns = outputs.double().reshape(len(outputs), -1)
        solved = torch.linalg.solve_triangular(self.root.T, columns, upper=True)
        return solved.reshape(outputs.shape)


def output_sensitivities(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    answers: Iterable[nn.Module],
    batches: Sequence[Any],
    forward: Forward = call_model,
    progress: bool = False,
) -> dict[str, Sensitivity]:
    """For each layer, what errors in its outputs do to the answers of the model.

    To first order an error e at one position changes the answers by J e, with J their derivative,
    and ``e^T E[J^T J] e`` is the mean square of that. The expectation over positions is estimated
    from gradients of randomly signed sums of the answers (Hutchinson). The outputs of each module
    in ``answers`` count in units of their own standard deviation, whatever their number: class
    scores as much as box offsets.

    Where there is no derivative, as of detectron2's deformable convolutions on a CPU, all outputs
    count alike of each layer that has an effect through such a module.

    Args:
        layers: convolutions and fully connected layers by name.
        answers: modules whose outputs are what the model is for.
        batches, forward: as in :class:`Task`; a few batches do.
        progress: show a bar.

    Returns:
        one for each layer on which the answers depend

    Raises:
        InputError: gradients are not finite.
    """
    answers, sums, unknown = list(answers), {}, set()
    cuts: list[nn.Module] = []
    generator = torch.Generator().manual_seed(0)
    with evaluating(model):
        for batch in tqdm(batches, desc="sensitivity", unit="batch", disable=not progress):
            arguments = model, layers, answers, batch, forward, generator
            try:
                gradients = _gradients(*arguments, cuts)
            except NotImplementedError:
                cuts = _foreign(model)
                gradients = _gradients(*arguments, cuts)
            for name, gradient in gradients:
                channels = 1 if isinstance(layers[name], nn.Conv2d) else -1
                rows = gradient.movedim(channels, -1).flatten(0, -2)
                if cuts and rows.isnan().any():
                    unknown.add(name)
                    continue
                if not rows.isfinite().all():
                    raise InputError(
                        f"{name}: the answers do not depend on it in finite numbers; check that "
                        "the weights are trained and that the inputs are preprocessed as they need"
                    )
                sums[name] = sums.get(name, 0.0) + (rows.T @ rows).double()
    found = {name: Sensitivity(matrix) for name, matrix in sums.items() if matrix.any()}
    return {**found, **{name: Sensitivity(known=False) for name in unknown}}


def unweighed(sensitivities: Mapping[str, Sensitivity]) -> list[str]:
    """A line on the layers of which nothing tells how their outputs count, if there are any."""
    names = [name for name, sensitivity in sensitivities.items() if not sensitivity.known]
    if not names:
        return []
    return [
        f"all outputs were weighed alike in {len(names)} layers, from {names[0]} to {names[-1]}: "
        "what follows them has no derivative here (deformable convolutions have none on a CPU)"
    ]


def _foreign(model: nn.Module) -> list[nn.Module]:
    """Layers with weights that are neither torch's own nor like them."""
    modules = map(model.get_submodule, left_alone(model))
    return [
        module
        for module in modules
        if not isinstance(module, KINDS) and not type(module).__module__.startswith("torch.")
    ]


class _Cut(torch.autograd.Function):
    """An output of unknown derivative: what it came from gets nan for a gradient."""

    @staticmethod
    def forward(ctx, output: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*inputs)
        return output.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        return None, *(torch.full_like(x, torch.nan) for x in ctx.saved_tensors)


def _gradients(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    answers: Sequence[nn.Module],
    batch: Any,
    forward: Forward,
    generator: torch.Generator,
    cuts: Sequence[nn.Module],
) -> list[tuple[str, torch.Tensor]]:
    """Of a randomly weighted sum of the answers, with respect to the outputs of each call.

    Those that depend on a derivative of one of ``cuts`` are nan.
    """
    names: list[str] = []
    outputs: list[torch.Tensor] = []
    total: list[torch.Tensor] = []

    def keep(name, module, args, y):
        names.append(name)
        outputs.append(y if y.requires_grad else y.detach().requires_grad_())
        return outputs[-1].clone()  # what follows may work in place

    def answer(module, args, y):
        if y.requires_grad and y.numel() > 1:
            signs = torch.randint(2, y.shape, generator=generator).to(y) * 2 - 1
            scale = y.detach().std().clamp(min=1e-12) * y.numel() ** 0.5
            total.append((signs * y).sum() / scale)

    def cut(module, args, y):
        inputs = [x for x in args if isinstance(x, torch.Tensor) and x.requires_grad]
        return _Cut.apply(y.detach(), *inputs) if inputs else y

    hooks = {layer: partial(keep, name) for name, layer in layers.items()}
    hooks.update(dict.fromkeys(cuts, cut))
    hooks.update(dict.fromkeys(answers, answer))
    registered = (module.register_forward_hook(hook) for module, hook in hooks.items())
    with attached(registered), torch.enable_grad():
        forward(model, batch)
        if not outputs or not total:
            return []
        gradients = torch.autograd.grad(sum(total), outputs, allow_unused=True)
    return [(name, gradient) for name, gradient in zip(names, gradients) if gradient is not None]
