"""Replace the layers of a model in place."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn

from ..errors import InputError
from ..layers import LowRankLinear, SparseFusionConv2d, TuckerLinear
from .candidates import compact_layers, dense_layers, why_it_stays
from .narrow import first_channels, keep_channels
from .plan import LayerPlan, Plan
from .projection import project_convolution, project_linear, project_maps


def sparsify_(model: nn.Module, plan: Plan, project: bool = True) -> nn.Module:
    """Replace, in place, each layer that ``plan`` names by its compact form.

    The norm and activation that a ``detectron2.layers.Conv2d`` carries move to its replacement, and
    so do dtype, device, training mode and which parameters are frozen. A layer that the model
    reaches in several ways is replaced in all of them.

    Args:
        project: start from the nearest to the dense weights; otherwise from fresh random weights
            (for a model that is trained from scratch, or whose checkpoint is loaded next).

    Returns:
        ``model`` itself.

    Raises:
        InputError: the plan names what is not a dense layer, or narrows one and is to be projected,
            which takes images; the model is then unchanged.
    """
    layers = planned_layers(model, plan)
    narrow = [name for name in plan if plan[name].in_channels or plan[name].out_channels]
    if project and narrow:
        raise InputError(
            f"plan entry {narrow[0]!r}: which channels to leave out is chosen on images, so it "
            "cannot be done from the weights alone"
        )
    twins = {layers[name]: compact_twin(layers[name], plan[name], project) for name in plan}
    for entry in plan.values():
        for name in entry.channelwise:
            module = model.get_submodule(name)
            twins[module] = keep_channels(module, torch.arange(entry.out_channels))
    replace_modules(model, twins)
    return model


def planned_layers(model: nn.Module, plan: Collection[str]) -> dict[str, nn.Module]:
    """The dense layer of each name in ``plan``.

    Raises:
        InputError: a name that is not there, is compact already or cannot be replaced.
    """
    modules = dict(model.named_modules())
    compact, dense = compact_layers(model), dense_layers(model)
    for name in plan:
        if name not in modules or not name:
            raise InputError(f"the plan names {name!r}, which is not a layer of this model")
        if name in compact:
            raise InputError(f"the plan names {name!r}, which is compressed already")
        if name not in dense:
            raise InputError(f"the plan names {name!r}, {why_it_stays(model, name)}")
    return {name: dense[name] for name in plan}


def compact_twin(dense: nn.Module, entry: LayerPlan, project: bool) -> nn.Module:
    """The compact layer that can take the place of ``dense``.

    Args:
        dense: of the numbers of channels that ``entry`` says, if it is to be projected.
    """
    dense = first_channels(dense, entry)
    if not entry.ranks:
        return copy.deepcopy(dense)
    if entry.channel_rank:
        compact = TuckerLinear(
            dense.in_features,
            dense.out_features,
            entry.ranks[0],
            entry.channel_rank,
            entry.positions,
            bias=dense.bias is not None,
        )
        project_ = project_maps
    elif isinstance(dense, nn.Linear):
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


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Put other modules in the place of some, wherever ``model`` refers to them.

    That includes the plain lists through which detectron2's FPN reaches its children.
    """
    for parent in list(model.modules()):
        # Not named_children(), which gives a module that is there under two names only once.
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
        for value in vars(parent).values():
            if isinstance(value, list):
                value[:] = [
                    replacements.get(v, v) if isinstance(v, nn.Module) else v for v in value
                ]
