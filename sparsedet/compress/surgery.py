"""Replace the layers of a model in place."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from ..layers import LowRankLinear, SparseFusionConv2d
from .plan import LayerPlan, Plan
from .projection import project_convolution, project_linear


def sparsify_(model: nn.Module, plan: Plan, project: bool = True) -> nn.Module:
    """Replace, in place, each layer that ``plan`` names by its compact form.

    The norm and activation that a ``detectron2.layers.Conv2d`` carries move to its replacement, and
    so do dtype, device, training mode and which parameters are frozen.

    Args:
        project: start from the nearest to the dense weights; otherwise from fresh random weights
            (for a model that is trained from scratch, or whose checkpoint is loaded next).

    Returns:
        ``model`` itself.

    Raises:
        InputError: the plan names a layer that is not there; the model is then unchanged.
    """
    modules = dict(model.named_modules())
    for name in plan:
        if name not in modules or not name:
            raise InputError(f"the plan names {name!r}, which is not a layer of this model")
    compact = {name: _compact(modules[name], entry, project) for name, entry in plan.items()}
    for name, module in compact.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, module)
    _replace_in_lists(model, {modules[name]: module for name, module in compact.items()})
    return model


def _compact(dense: nn.Module, entry: LayerPlan, project: bool) -> nn.Module:
    if isinstance(dense, nn.Linear):
        compact = LowRankLinear(
            dense.in_features, dense.out_features, entry.ranks[0], bias=dense.bias is not None
        )
        project_ = project_linear
    else:
        compact = SparseFusionConv2d(
            dense.in_channels,
            dense.out_channels,
            dense.kernel_size,
            dense.stride,
            dense.padding,
            dense.dilation,
            dense.groups,
            dense.bias is not None,
            pattern=entry.pattern,
            ranks=entry.ranks,
            norm=getattr(dense, "norm", None),
            activation=getattr(dense, "activation", None),
        )
        project_ = project_convolution
    compact.to(dense.weight)
    if project:
        project_(dense, compact)
    norm_parameters = {id(p) for m in (getattr(dense, "norm", None),) if m for p in m.parameters()}
    for parameter in compact.parameters():
        if id(parameter) not in norm_parameters:
            parameter.requires_grad_(dense.weight.requires_grad)
    return compact.train(dense.training)


def _replace_in_lists(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    """Renew the plain lists through which some modules (detectron2's FPN) reach their children."""
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, list):
                value[:] = [
                    replacements.get(v, v) if isinstance(v, nn.Module) else v for v in value
                ]
