"""A convolution as a linear fusion of complementary sparse kernels (arXiv 1808.02167)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..compat import pair
from ..kernels import Phase, fusion_weights, sparse_kernels


class SparseFusionConv2d(nn.Module):
    """``y = b + sum_m F_m (S_m * x)``: sparse kernels S_m of ``ranks[m]`` outputs, 1x1 fusion F_m.

    Arguments up to ``bias``, and ``norm`` and ``activation``, are those of
    ``detectron2.layers.Conv2d``; norm and activation follow the fusion, as they follow the
    convolution that this module replaces. Each phase of each sparse kernel is one native dilated
    convolution, so no structural zero is stored or multiplied, and the module equals one dense
    convolution exactly (:meth:`to_dense`).

    Args:
        pattern: a name in :data:`sparsedet.kernels.PATTERNS`.
        ranks: outputs of each sparse kernel, each a positive multiple of ``groups``.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H', W'), H' and W' as for ``nn.Conv2d``.

    Raises:
        ValueError: arguments of which no such module can be made.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        pattern: str,
        ranks: Sequence[int],
        norm: nn.Module | None = None,
        activation: Callable | None = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size)
        self.stride = pair(stride)
        self.padding = pair(padding)
        self.dilation = pair(dilation)
        self.groups = groups
        self.pattern = pattern
        self.ranks = tuple(ranks)
        self._check_arguments()
        self.kernels = sparse_kernels(pattern, self.kernel_size)
        if len(self.ranks) != len(self.kernels):
            raise ValueError(
                f"pattern {pattern!r} has {len(self.kernels)} sparse kernels, "
                f"ranks has {len(self.ranks)} entries"
            )

        self.sparse = nn.ModuleList(
            nn.ModuleList(_PhaseConv2d(self, phase, rank) for phase in kernel.phases)
            for kernel, rank in zip(self.kernels, self.ranks)
        )
        self.fusion = nn.Conv2d(sum(self.ranks), out_channels, 1, groups=groups, bias=bias)
        self.norm = norm
        self.activation = activation
        self.reset_parameters()

    def _check_arguments(self) -> None:
        for name in ("in_channels", "out_channels", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            if len(value) != 2 or not all(isinstance(v, int) and v >= least for v in value):
                raise ValueError(f"{name} must be one or two integers >= {least}, not {value}")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} {getattr(self, name)} is not divisible by {self.groups}")
        for rank in self.ranks:
            if rank < 1 or rank % self.groups:
                raise ValueError(f"rank {rank} is not a positive multiple of groups={self.groups}")

    def reset_parameters(self) -> None:
        """Normal initialisation that gives the output variance of He et al. for ReLU networks."""
        for convs, kernel in zip(self.sparse, self.kernels):
            fan_in = len(kernel.taps) * self.in_channels // self.groups
            for conv in convs:
                nn.init.normal_(conv.weight, std=1 / math.sqrt(fan_in))
        nn.init.normal_(self.fusion.weight, std=math.sqrt(2 * self.groups / sum(self.ranks)))
        if self.fusion.bias is not None:
            nn.init.zeros_(self.fusion.bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W'), as ``nn.Conv2d``.

        On a CPU the work is done in channels-last, in which convolutions this narrow run up to
        three times sooner, and their gradients too. The output has the memory format of the input,
        as a dense convolution's: what follows may need it. So a network that is given
        channels-last images is not converted at every layer.
        """
        x = input  # the name by which a model may give it
        # A part of a larger tensor is neither; what nn.Conv2d makes of it is plain.
        plain = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        outputs = []
        for convs in self.sparse:
            output = convs[0](x)
            for conv in convs[1:]:
                output = output + conv(x)
            outputs.append(output)
        x = self.fusion(self._concatenate(outputs))
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x.contiguous() if plain else x

    def _concatenate(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        if self.groups == 1:
            return torch.cat(outputs, dim=1)
        # The grouped fusion reads the outputs group by group, not kernel by kernel.
        split = [y.unflatten(1, (self.groups, -1)) for y in outputs]
        return torch.cat(split, dim=2).flatten(1, 2)

    @torch.no_grad()
    def set_kernel(
        self, index: int, sparse: torch.Tensor, fusion: torch.Tensor, group: int | None = None
    ) -> None:
        """Write sparse kernel ``index``: S_m and F_m, of one group or of all.

        Args:
            sparse: (ranks[m], in_channels / groups, taps), taps in ``kernels[m].taps`` order; of
                one group, ranks[m] / groups of them.
            fusion: (out_channels, ranks[m] / groups); of one group, out_channels / groups of them.
        """
        part = slice(None)
        if group is not None:
            part = slice(group * len(sparse), (group + 1) * len(sparse))
        first = 0
        for conv, phase in zip(self.sparse[index], self.kernels[index].phases):
            last = first + len(phase.taps)
            weight = conv.weight[part]
            weight.copy_(sparse[:, :, first:last].reshape(weight.shape))
            first = last
        if group is not None:
            part = slice(group * len(fusion), (group + 1) * len(fusion))
        columns = self._fusion_columns(index)
        self.fusion.weight[part, columns, 0, 0] = fusion.to(self.fusion.weight)

    @torch.no_grad()
    def rescale_(self, scale: torch.Tensor) -> None:
        """Divide the outputs of the sparse kernels by ``scale`` (sum(ranks),).

        The fusion undoes it: the module gives the same. Without groups only.
        """
        for index, convs in enumerate(self.sparse):
            for conv in convs:
                conv.weight /= scale[self._fusion_columns(index), None, None, None]
        self.fusion.weight *= scale[:, None, None]

    def _fusion_columns(self, index: int) -> slice:
        start = sum(self.ranks[:index]) // self.groups
        return slice(start, start + self.ranks[index] // self.groups)

    def dense_weight(self) -> torch.Tensor:
        """(out_channels, in_channels / groups, k_h, k_w): W[..., t] = sum_m F_m S_m[..., t]."""
        g, per_group = self.groups, self.in_channels // self.groups
        fusion = self.fusion.weight.flatten(1)
        weight = fusion.new_zeros(self.out_channels, per_group, *self.kernel_size)
        for index, convs in enumerate(self.sparse):
            factor = fusion[:, self._fusion_columns(index)].unflatten(0, (g, -1))
            for conv, phase in zip(convs, self.kernels[index].phases):
                taps = factor @ conv.weight.flatten(1).unflatten(0, (g, -1))
                rows, columns = phase.rows, phase.columns
                weight[
                    :,
                    :,
                    rows.start : rows.stop : rows.step,
                    columns.start : columns.stop : columns.step,
                ] += taps.reshape(self.out_channels, per_group, len(rows), len(columns))
        return weight

    @torch.no_grad()
    def to_dense(self) -> nn.Module:
        """The dense ``nn.Conv2d`` that this module equals, followed by its norm and activation."""
        bias = self.fusion.bias
        conv = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias=bias is not None,
        ).to(self.fusion.weight)
        conv.weight.copy_(self.dense_weight())
        if bias is not None:
            conv.bias.copy_(bias)
        rest = [m for m in (self.norm, _as_module(self.activation)) if m is not None]
        return (nn.Sequential(conv, *rest) if rest else conv).train(self.training)

    def multiply_adds(self, out_height: int, out_width: int) -> int:
        """Multiply-adds of one image whose output is ``out_height`` x ``out_width``."""
        weights = fusion_weights(
            self.in_channels, self.out_channels, self.kernels, self.ranks, self.groups
        )
        return weights * out_height * out_width

    def extra_repr(self) -> str:
        """What the layer is, when it is printed."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, pattern={self.pattern!r}, ranks={self.ranks}"
        )


class _PhaseConv2d(nn.Conv2d):
    """One phase of a sparse kernel: a native convolution with the right padding on each side."""

    def __init__(self, fusion: SparseFusionConv2d, phase: Phase, rank: int):
        axes = [
            _phase_axis(taps, size, dilation, padding)
            for taps, size, dilation, padding in zip(
                (phase.rows, phase.columns), fusion.kernel_size, fusion.dilation, fusion.padding
            )
        ]
        super().__init__(
            fusion.in_channels,
            rank,
            (len(phase.rows), len(phase.columns)),
            fusion.stride,
            padding=tuple(axis[1] for axis in axes),
            dilation=tuple(axis[0] for axis in axes),
            groups=fusion.groups,
            bias=False,
        )
        (_, _, *vertical), (_, _, *horizontal) = axes
        self.extra_padding = (*horizontal, *vertical)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if any(self.extra_padding):
            x = F.pad(x, self.extra_padding)
        if self.weight.requires_grad and torch.is_grad_enabled():
            if self.kernel_size == (1, 1) and self.stride != (1, 1):
                return self._forward_by_slices(x)
            if x.device.type == "cpu" and self._has_wrong_gradient():
                return self._forward_in_float32(x)
        return super().forward(x)

    def _forward_by_slices(self, x: torch.Tensor) -> torch.Tensor:
        """Of one tap with a stride, for training: what the stride steps over is dropped first.

        The gradient of such weights, from few channels-last channels, crashes in oneDNN 3.12
        (docs/reliability.md).
        """
        vertical, horizontal = pair(self.padding)
        x = F.pad(x, (horizontal, horizontal, vertical, vertical))
        x = x[:, :, :: self.stride[0], :: self.stride[1]]
        return F.conv2d(x, self.weight, groups=self.groups)

    def _has_wrong_gradient(self) -> bool:
        """Of its weights, on a CPU, in what precision they are about to be used.

        In bfloat16, oneDNN 3.12 gets that of taps in rows apart wrong where the channels that they
        read are not a multiple of 16 (docs/reliability.md).
        """
        if self.dilation[0] == 1 or self.in_channels // self.groups % 16 == 0:
            return False
        return torch.is_autocast_enabled("cpu") or self.weight.dtype == torch.bfloat16

    def _forward_in_float32(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), None).to(x.dtype)


def _phase_axis(taps: range, size: int, dilation: int, padding: int) -> tuple[int, int, int, int]:
    """Dilation, native (symmetric) padding, and what is left to pad before and after (or crop).

    Tap i of the window reads input ``o * stride + i * dilation - padding`` for output o, so a phase
    that starts at tap a and ends at tap z needs a * dilation less padding before, and
    (size - 1 - z) * dilation less after.
    """
    before = padding - taps[0] * dilation
    after = padding - (size - 1 - taps[-1]) * dilation
    native = max(0, min(before, after))
    step = dilation * (taps.step if len(taps) > 1 else 1)
    return step, native, before - native, after - native


def _as_module(activation: Callable | None) -> nn.Module | None:
    if activation is None or isinstance(activation, nn.Module):
        return activation
    return _Lambda(activation)


class _Lambda(nn.Module):
    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)
