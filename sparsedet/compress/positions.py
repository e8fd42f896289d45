"""Whether a model looks at the same positions whatever its layers put out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import InputError
from ..hooks import attached
from .candidates import dense_layers
from .observe import observe
from .task import Task

NOISE = 1e-2
"""Added to the outputs of every dense layer, as a share of their standard deviation."""

JUMP = 0.25
"""A row of a layer's input that changes by more than this share of its size has jumped. In
ResNet-50, MobileNetV2, DenseNet-121, ViT-B and detectors whose boxes are held none changes by more
than 0.03; where boxes change, a fifth of the rows changes by up to 0.6."""

FEW = 1e-3
"""The share of rows that may jump."""

ROWS = 4096
"""Rows that are looked at in each call of a layer."""


@torch.no_grad()
def check_positions(model: nn.Module, layers: Mapping[str, nn.Module], task: Task) -> None:
    """Refuse layers whose inputs are of other positions as soon as earlier layers change a little.

    A detector's box head sees the boxes that its proposal generator found. With other boxes, or the
    same in another order, it would be fitted to give at one place what the dense one gave at
    another. So one batch runs twice, the second time with a little noise on every layer's outputs.

    Raises:
        InputError: the layer, and what to do.
    """
    before = _inputs(model, layers, task, noise=0.0)
    after = _inputs(model, layers, task, noise=NOISE)
    for name, calls in before.items():
        same = len(calls) == len(after[name])
        if not same or any(_jumps(*pair) for pair in zip(calls, after[name])):
            raise InputError(
                f"{name}: the positions that it sees depend on what the layers before it put out, "
                "so it cannot be fitted; hold fixed the module that chooses them, as in "
                'Task(batches, fixed=["rpn"]), or leave the layer out'
            )


def _inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], task: Task, noise: float
) -> dict[str, list[torch.Tensor]]:
    """Of every layer's calls in the first batch, rows (at most ROWS, numbers) of its input."""
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    generator = torch.Generator().manual_seed(0)
    disturbed = dense_layers(model).values() if noise else ()

    def visit(name):
        def keep(batch, call, x):
            rows = x.movedim(1, -1) if isinstance(layers[name], nn.Conv2d) and x.dim() == 4 else x
            rows = rows.reshape(-1, rows.shape[-1])
            inputs[name].append(rows[:: -(-len(rows) // ROWS) or 1].float().clone())

        return keep

    def disturb(module, args, y):
        signs = torch.randn(y.shape, generator=generator).to(y)
        return y + noise * y.std(correction=0) * signs

    visits = {layer: visit(name) for name, layer in layers.items()}
    with attached(layer.register_forward_hook(disturb) for layer in disturbed):
        for _ in observe(model, task.batches[:1], task.forward, visits):
            pass
    return inputs


def _jumps(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape:
        return True
    if not before.numel():
        return False
    size = before.square().mean().sqrt() * before.shape[1] ** 0.5
    change = (after - before).norm(dim=1) / (before.norm(dim=1) + size).clamp(min=1e-12)
    return (change > JUMP).float().mean().item() > FEW
