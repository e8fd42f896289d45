"""A trained detector as fast as eager PyTorch runs it, with the same detections."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.proposal_generator.rpn import RPN
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .. import compat
from ..compress.surgery import replace_modules
from ..layers import SparseFusionConv2d
from ..modeling import VGG
from .pooling import pool_by_sums_

# The modules that take the time, which may run in another dtype.
_HEAVY = ("backbone", "proposal_generator.rpn_head", "roi_heads.res5", "roi_heads.box_head")
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
# The stages that run in bands: in later ones, the rows that are computed twice cost what is gained.
BANDED_STAGES = 2
# The largest output in a band: a few of them fit in the last cache.
BAND_BYTES = 8 * 2**20
# For so many sizes of input a convolution keeps its weights packed: the levels of a pyramid, or the
# first, the middle and the last band of a few images. What is packed for one size oneDNN packs anew
# for another, on every call and slowly (docs/performance.md).
SIZES = 8
_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


def optimize_for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a detectron2 model that gives the same detections sooner.

    It is called as the model is. It cannot be trained, copied or moved to another device, and its
    state dict is not the model's, so this comes last. On Linux, :func:`keep_freed_memory`, called
    once, spares it what new memory costs.

    Args:
        model: with its weights, on its device. It is not changed.
        dtype: torch.bfloat16, or torch.float16 on a GPU, runs trunk, proposal head and box head in
            that type. Boxes and scores stay float32, but agree less closely then.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms_(model)
    relu_in_place_(model)
    if dtype != torch.float32:
        run_heavy_parts_in_(model, dtype)
    if _on_cpu(model):
        fuse_convolutions_(model)
        run_early_stages_in_bands_(model)
        suppress_few_proposals_(model)
        pool_by_sums_(model)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def fold_batch_norms_(model: nn.Module) -> None:
    """Multiply each batch norm, as it is in eval mode, into the convolution that carries it."""
    for layer in model.modules():
        if not isinstance(layer, (Conv2d, SparseFusionConv2d)):
            continue
        norm = layer.norm
        # Without running statistics it normalises by the batch's own, in eval mode too.
        if not isinstance(norm, _BATCH_NORMS) or norm.running_mean is None:
            continue
        conv = layer.fusion if isinstance(layer, SparseFusionConv2d) else layer
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        layer.norm = None


def relu_in_place_(model: nn.Module) -> None:
    """Overwrite the output of a convolution, which nobody else holds, by its ReLU."""
    for layer in model.modules():
        if isinstance(layer, (Conv2d, SparseFusionConv2d)) and _is_relu(layer.activation):
            layer.activation = nn.ReLU(inplace=True)


def run_heavy_parts_in_(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert trunk and heads; what goes in is converted too, and what comes out is float32."""
    modules = dict(model.named_modules())
    for part in filter(None, map(modules.get, _HEAVY)):
        # A cascade has a list of box heads, which is never called itself.
        for module in part if isinstance(part, nn.ModuleList) else [part]:
            module.to(dtype)
            module.register_forward_pre_hook(lambda _, args: _cast(args, dtype))
            module.register_forward_hook(lambda _, args, out: _cast(out, torch.float32))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Tensors, also in tuples, lists and dicts, in another dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype)
    if isinstance(value, Mapping):
        return {key: _cast(v, dtype) for key, v in value.items()}
    return type(value)(_cast(v, dtype) for v in value)


def fuse_convolutions_(model: nn.Module) -> None:
    """Give each convolution, with its ReLU, to oneDNN as one primitive, its weights packed once.

    A norm that is still there keeps its convolution as it is.
    """
    fused = {}
    for layer in model.modules():
        if isinstance(layer, SparseFusionConv2d):
            if layer.norm is None and layer.groups == 1:
                fused[layer] = _FusedSparseConv2d(layer)
        elif type(layer) in (nn.Conv2d, Conv2d) and getattr(layer, "norm", None) is None:
            if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
                fused[layer] = _FusedConv2d(layer, getattr(layer, "activation", None))
    replace_modules(model, fused)


class _FusedConv2d(nn.Module):
    """A convolution, its bias and its ReLU in one pass over the output.

    Its weights are packed once for each size of input. The operators are those that PyTorch's own
    compiler calls on CPUs.
    """

    def __init__(self, conv: nn.Conv2d, activation=None):
        super().__init__()
        self.bias = conv.bias
        self.padding, self.stride, self.dilation = map(
            list, (conv.padding, conv.stride, conv.dilation)
        )
        self.groups = conv.groups
        self.relu = _is_relu(activation)
        self.activation = None if self.relu else activation
        weight, geometry = conv.weight.detach(), self._geometry()
        self.packed = lru_cache(SIZES)(
            lambda size: compat.pack_convolution(weight, geometry, list(size))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.packed(x.shape)
        x = compat.convolution(x, weight, self.bias, self._geometry(), self.relu)
        return x if self.activation is None else self.activation(x)

    def add_to(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """Add the convolution of ``x`` to ``y``, which may be a slice of channels."""
        compat.add_convolution_(y, x, self.packed(x.shape), self.bias, self._geometry())

    def _geometry(self) -> tuple:
        return self.padding, self.stride, self.dilation, self.groups


class _FusedSparseConv2d(nn.Module):
    """A sparse fusion without sums or concatenation.

    Every phase of every sparse kernel adds its output where the 1x1 fusion reads it.
    """

    def __init__(self, layer: SparseFusionConv2d):
        super().__init__()
        self.geometry = list(zip(layer.kernel_size, layer.stride, layer.padding, layer.dilation))
        self.ranks = layer.ranks
        self.extra_padding = [[conv.extra_padding for conv in convs] for convs in layer.sparse]
        self.sparse = nn.ModuleList(
            nn.ModuleList(_FusedConv2d(conv) for conv in convs) for convs in layer.sparse
        )
        self.fusion = _FusedConv2d(layer.fusion, layer.activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.sparse) == len(self.sparse[0]) == 1:  # one native convolution
            [[conv]], [[extra]] = self.sparse, self.extra_padding
            return self.fusion(conv(_pad(x, extra)))
        height, width = (
            (length + 2 * padding - dilation * (size - 1) - 1) // stride + 1
            for length, (size, stride, padding, dilation) in zip(x.shape[-2:], self.geometry)
        )
        outputs = x.new_zeros(len(x), height, width, sum(self.ranks)).permute(0, 3, 1, 2)
        parts = outputs.split(self.ranks, dim=1)
        for convs, extra_padding, part in zip(self.sparse, self.extra_padding, parts):
            for conv, extra in zip(convs, extra_padding):
                conv.add_to(part, _pad(x, extra))
        return self.fusion(outputs)


def _pad(x: torch.Tensor, extra: tuple[int, ...]) -> torch.Tensor:
    return F.pad(x, extra) if any(extra) else x  # by nothing, it would copy


def run_early_stages_in_bands_(model: nn.Module) -> None:
    """Keep what passes between the layers of a VGG's early stages in the processor's cache."""
    for module in model.modules():
        if type(module) is VGG:
            compat.become(module, _BandedVGG)


class _BandedVGG(VGG):
    """A VGG whose first stages, unless they are features, run in bands of rows, one after another.

    A band is computed with as many rows around it as its convolutions see, which are dropped: the
    result is the same.
    """

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs: dict[str, torch.Tensor] = {}
        for stage, names in enumerate(self.stages, start=1):
            name = f"conv{stage}"
            if stage > BANDED_STAGES or name in self._out_features:
                outputs[name] = self._convolve(names, x)
                x = F.max_pool2d(outputs[name], kernel_size=2, stride=2)
            else:
                x = self._pooled_in_bands(names, x, self._out_feature_channels[name])
        outputs["pool5"] = x
        return {name: outputs[name] for name in self._out_features}

    def _convolve(self, names: list[str], x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def _pooled_in_bands(self, names: list[str], x: torch.Tensor, channels: int) -> torch.Tensor:
        height = x.shape[2]
        margin = len(names) + len(names) % 2  # every convolution sees one row; pooling takes two
        row = len(x) * channels * x.shape[3] * x.element_size()
        rows = max(BAND_BYTES // row // 2 * 2, 4 * margin)
        bands = []
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            above = min(margin, start)
            band = self._convolve(names, x[:, :, start - above : stop + margin])
            band = F.max_pool2d(band, kernel_size=2, stride=2)
            bands.append(band[:, :, above // 2 : (above + stop - start) // 2])
        return torch.cat(bands, dim=2)


def suppress_few_proposals_(model: nn.Module) -> None:
    """Let the proposal generator suppress no more candidates than it needs."""
    generator = getattr(model, "proposal_generator", None)
    # With several feature levels, the best candidates of each are not the best of all.
    if type(generator) is RPN and len(generator.in_features) == 1:
        compat.become(generator, _FrugalRPN)


class _FrugalRPN(RPN):
    """An RPN that tries its best candidates first.

    Suppression keeps or drops a box whatever comes after it. So where the best few candidates leave
    as many proposals as are wanted, these are the same as from all of them.
    """

    def predict_proposals(self, *args):
        wanted, most = self.post_nms_topk[False], self.pre_nms_topk
        count = 4 * wanted
        try:
            while count < most[False]:
                self.pre_nms_topk = {False: count}
                proposals = super().predict_proposals(*args)
                if all(len(p) == wanted for p in proposals):
                    return proposals
                count *= 4
        finally:
            self.pre_nms_topk = most
        return super().predict_proposals(*args)


def _is_relu(activation: Any) -> bool:
    return isinstance(activation, nn.ReLU) or activation in _RELUS


def _on_cpu(model: nn.Module) -> bool:
    """Whether the model is on a CPU for which PyTorch has oneDNN, in a dtype that both take."""
    parameter = next(model.parameters())
    return parameter.device.type == "cpu" and compat.has_onednn(parameter.dtype)
