"""The layer equals one dense convolution, and torch's tools take it as they take any other."""

import copy
import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import nn

from sparsedet.kernels import PATTERNS, sparse_kernels
from sparsedet.layers import LowRankLinear, SparseFusionConv2d


def _layer(pattern="checkerboard", rank=4, **kwargs):
    torch.manual_seed(0)
    count = len(sparse_kernels(pattern, (3, 3)))
    return SparseFusionConv2d(6, 8, 3, padding=1, pattern=pattern, ranks=[rank] * count, **kwargs)


def _draw(generator):
    """A random layer with its input size."""
    pattern = generator.choice(list(PATTERNS))
    groups = generator.choice([1, 1, 2, 3])
    kernel_size = generator.randint(2, 6), generator.randint(2, 6)
    ranks = [groups * generator.randint(1, 4) for _ in sparse_kernels(pattern, kernel_size)]
    layer = SparseFusionConv2d(
        groups * generator.randint(1, 3),
        groups * generator.randint(1, 3),
        kernel_size,
        stride=(generator.randint(1, 3), generator.randint(1, 3)),
        padding=(generator.randint(0, 5), generator.randint(0, 5)),
        dilation=(generator.randint(1, 3), generator.randint(1, 3)),
        groups=groups,
        bias=generator.random() < 0.5,
        pattern=pattern,
        ranks=ranks,
    )
    return layer.double(), (generator.randint(16, 24), generator.randint(16, 24))


def test_equals_one_dense_convolution_over_a_random_sweep():
    torch.manual_seed(0)
    generator = random.Random(0)
    for _ in range(500):
        layer, size = _draw(generator)
        x = torch.randn(2, layer.in_channels, *size, dtype=torch.double)
        dense = layer.to_dense()
        assert type(dense) is nn.Conv2d
        torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-10)


def test_dense_weight_is_the_sum_over_kernels_tap_by_tap():
    layer = _layer("quad").double()
    expected = torch.zeros(8, 6, 3, 3, dtype=torch.double)
    for m, kernel in enumerate(layer.kernels):
        fusion = layer.fusion.weight[:, 4 * m : 4 * m + 4, 0, 0]
        weights = torch.cat([conv.weight.flatten(2) for conv in layer.sparse[m]], dim=2)
        for t, (i, j) in enumerate(kernel.taps):
            expected[:, :, i, j] += fusion @ weights[:, :, t]
    torch.testing.assert_close(layer.dense_weight(), expected)


def test_norm_and_activation_follow_the_fusion():
    norm = nn.BatchNorm2d(8)
    norm.running_mean.normal_()
    layer = _layer(norm=norm, activation=F.relu).eval()
    x = torch.randn(2, 6, 9, 7)
    plain = F.conv2d(x, layer.dense_weight(), layer.fusion.bias, padding=1)
    torch.testing.assert_close(layer(x), F.relu(norm(plain)))
    torch.testing.assert_close(layer.to_dense()(x), layer(x))


def test_parameters_and_multiply_adds_are_those_that_fvcore_counts():
    generator = random.Random(1)
    for _ in range(20):
        layer, size = _draw(generator)
        layer = layer.float()
        x = torch.randn(1, layer.in_channels, *size)
        out = layer(x)
        flops = FlopCountAnalysis(layer, x)
        flops.unsupported_ops_warnings(False)
        convolutions = flops.by_operator()["conv"]
        assert layer.multiply_adds(*out.shape[-2:]) == convolutions
        weights = sum(p.numel() for name, p in layer.named_parameters() if "bias" not in name)
        assert layer.multiply_adds(1, 1) == weights


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients(pattern):
    layer = _layer(pattern, rank=2).double()
    x = torch.randn(1, 6, 5, 4, dtype=torch.double, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    values = tuple(p.detach().requires_grad_() for p in layer.parameters())

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *values))


TRAIN_NARROW_LAYERS = """
import itertools
import torch
from sparsedet.kernels import PATTERNS, sparse_kernels
from sparsedet.layers import SparseFusionConv2d

torch.manual_seed(0)
strides = [1, 2, 3, (1, 2), (2, 1), (2, 3)]
for pattern, channels, stride, padding in itertools.product(PATTERNS, range(1, 5), strides, (0, 1)):
    ranks = [4] * len(sparse_kernels(pattern, (3, 3)))
    layer = SparseFusionConv2d(
        channels, 8, 3, stride, padding, pattern=pattern, ranks=ranks, bias=False
    )
    x = torch.randn(4, channels, 48, 48).to(memory_format=torch.channels_last)
    for _ in range(2):
        found = torch.autograd.grad(layer(x).square().mean(), list(layer.parameters()))
    dense = layer.double().dense_weight()
    y = torch.nn.functional.conv2d(x.double(), dense, stride=stride, padding=padding)
    expected = torch.autograd.grad(y.square().mean(), list(layer.parameters()))
    for a, b in zip(found, expected):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-5)
"""


def test_training_of_narrow_layers_with_every_stride():
    """In a process of its own: oneDNN's gradient of a strided tap ends it (docs/reliability.md)."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_NARROW_LAYERS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_bfloat16_autocast():
    layer, x = _layer(), torch.randn(2, 6, 9, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def _fill_freed_memory_with_nan():
    for size in (1_000, 100_000, 3_000_000):
        torch.full((size,), torch.nan)


@pytest.mark.parametrize("pattern", ["rows", "quad", "checkerboard"])
@pytest.mark.parametrize(("channels", "groups"), [(64, 1), (56, 1), (72, 1), (80, 2), (64, 8)])
def test_gradients_in_bfloat16_are_those_in_float32(channels, groups, pattern):
    """oneDNN's are wrong, or of memory that nobody wrote, of 56 or 5 times 8 channels in rows."""
    torch.manual_seed(0)
    ranks = [8] * len(sparse_kernels(pattern, (3, 3)))
    layer = SparseFusionConv2d(channels, 16, 3, 1, 1, groups=groups, pattern=pattern, ranks=ranks)
    x = torch.randn(4, channels, 48, 64).to(memory_format=torch.channels_last)
    y = torch.randn(4, 16, 48, 64)
    found = []
    for enabled in (False, True):
        _fill_freed_memory_with_nan()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = (layer(x) * y).sum()
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    _fill_freed_memory_with_nan()
    loss = (layer.bfloat16()(x.bfloat16()) * y).sum()
    found.append(torch.autograd.grad(loss, list(layer.parameters())))
    for exact, *others in zip(*found):
        for other in others:
            assert (exact - other).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_the_output_has_the_memory_format_of_the_input(format):
    layer, x = _layer(), torch.randn(2, 6, 9, 7).to(memory_format=format)
    y = layer(x)
    assert y.is_contiguous(memory_format=format)
    assert layer.to_dense()(x).is_contiguous(memory_format=format)
    torch.testing.assert_close(y, layer(x.contiguous()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", [slice(None), slice(0, 9), slice(1, None, 2)])
def test_what_follows_may_look_at_rows(part):
    layer = _layer()
    x = torch.randn(2, 6, 18, 7, requires_grad=True)
    dense = layer.to_dense()(x[:, :, part]).view(2, -1)
    rows = layer(x[:, :, part]).view(2, -1)
    torch.testing.assert_close(rows, dense, rtol=1e-4, atol=1e-5)
    rows.square().sum().backward()
    assert x.grad.isfinite().all()


def _trace(layer, x):
    return torch.jit.trace(layer, x)


def _export(layer, x):
    height, width = torch.export.Dim("height", min=4), torch.export.Dim("width", min=4)
    return torch.export.export(layer, (x,), dynamic_shapes=({2: height, 3: width},)).module()


def _compile(layer, x):
    return torch.compile(layer, backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize("capture", [_trace, _export, _compile])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_captured_graphs_take_other_sizes(capture):
    layer = SparseFusionConv2d(6, 8, (4, 3), stride=2, padding=1, pattern="rows", ranks=(3, 2))
    layer.eval()
    captured = capture(layer, torch.randn(2, 6, 9, 7))
    for size in [(9, 7), (12, 21)]:
        x = torch.randn(2, 6, *size)
        torch.testing.assert_close(captured(x), layer(x))


@torch.no_grad()
def test_the_input_may_be_given_by_the_name_that_it_has_in_torch():
    low_rank = LowRankLinear(4, 6, rank=2)
    for compact, dense, x in (
        (_layer(), nn.Conv2d(6, 8, 3, padding=1), torch.randn(1, 6, 5, 5)),
        (low_rank, nn.Linear(4, 6), torch.randn(3, 4)),
    ):
        assert dense(input=x).shape == compact(input=x).shape
        assert torch.equal(compact(input=x), compact(x))


def test_state_dict_and_deepcopy_round_trip():
    layer, x = _layer(), torch.randn(1, 6, 5, 5)
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x), layer(x))
    twin.reset_parameters()
    assert not torch.equal(twin(x), layer(x))
    twin.load_state_dict(layer.state_dict())
    torch.testing.assert_close(twin(x), layer(x))


def test_fresh_weights_keep_the_scale_of_a_relu_network():
    torch.manual_seed(0)
    layer = SparseFusionConv2d(128, 256, 3, padding=1, pattern="rows", ranks=(64, 64))
    x = F.relu(torch.randn(4, 128, 16, 16))
    assert 0.8 < layer(x).square().mean() / (2 * x.square().mean()) < 1.2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pattern": "spiral"}, "unknown pattern 'spiral'"),
        ({"ranks": (4,)}, "has 2 sparse kernels, ranks has 1"),
        ({"ranks": (4, 0)}, "rank 0 is not a positive multiple"),
        ({"ranks": (4, 3), "groups": 2}, "rank 3 is not a positive multiple of groups=2"),
        ({"groups": 4}, "in_channels 6 is not divisible by 4"),
        ({"stride": 0}, "stride must be"),
        ({"padding": -1}, "padding must be"),
        ({"padding": "same"}, "padding must be"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be"),
        ({"kernel_size": 1}, "does not split a 1x1 window"),
        ({"out_channels": 0}, "out_channels must be at least 1"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"in_channels": 6, "out_channels": 8, "kernel_size": 3}
    arguments.update({"pattern": "checkerboard", "ranks": (4, 4)}, **change)
    with pytest.raises(ValueError, match=message):
        SparseFusionConv2d(**arguments)


def test_low_rank_linear_equals_its_dense_layer():
    torch.manual_seed(0)
    layer = LowRankLinear(20, 12, 5).double()
    x = torch.randn(7, 20, dtype=torch.double)
    torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == 5 * (20 + 12) + 12
    with pytest.raises(ValueError, match="rank 13 of a 20x12 layer: 1 to 12"):
        LowRankLinear(20, 12, 13)
