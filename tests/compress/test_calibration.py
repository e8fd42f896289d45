"""A calibrated network is measured, exact where it can be, and never worse than its projection."""

import copy

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from torch import nn

from sparsedet.compress import LayerPlan, Task, sparsify_
from sparsedet.compress.calibrate import calibrate_
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, SparseFusionConv2d


class Network(nn.Module):
    """A trunk, a head that all its levels share, and fully connected layers on pooled boxes."""

    def __init__(self, norm=""):
        super().__init__()
        self.conv1 = _conv(3, 12, norm, padding=1)
        self.conv2 = _conv(12, 16, norm, padding=1, stride=2)
        self.conv3 = _conv(16, 16, norm, padding=2, dilation=2)
        self.head = nn.Conv2d(16, 16, (3, 2), padding=1)
        self.fc6 = nn.Linear(16 * 9, 20)
        self.fc7 = nn.Linear(20, 18)

    def forward(self, x):
        c2 = self.conv2(self.conv1(x))
        c3 = self.conv3(F.max_pool2d(c2, 2))
        levels = [F.relu(self.head(c)) for c in (c2, c3)]
        boxes = c3.unfold(2, 3, 2).unfold(3, 3, 2)
        rows = boxes.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        return [*levels, self.fc7(F.relu(self.fc6(rows)))]


def _conv(in_channels, out_channels, norm, **kwargs):
    return Conv2d(
        in_channels,
        out_channels,
        3,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
        **kwargs,
    )


PLAN = {
    "conv2": LayerPlan((5, 4), "checkerboard"),
    "conv3": LayerPlan((4, 4, 3, 2), "quad"),
    "head": LayerPlan((4, 4), "rows"),
    "fc6": LayerPlan((6,)),
    "fc7": LayerPlan((5,)),
}
FULL = {
    "conv2": LayerPlan((16, 16), "checkerboard"),
    "conv3": LayerPlan((16, 16), "rows"),
    "head": LayerPlan((16, 16), "columns"),
    "fc6": LayerPlan((20,)),
    "fc7": LayerPlan((18,)),
}


def _images(count, seed=0):
    """Smooth, as pictures are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 3, 6, 7, generator=generator)
    return [F.interpolate(x, size=(24, 28), mode="bicubic") for x in coarse]


@pytest.fixture(params=["", "BN", "FrozenBN"])
def network(request):
    torch.manual_seed(0)
    model = Network(request.param)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return model


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return Network()


def _output_errors(model, dense, batches):
    with torch.no_grad():
        pairs = [zip(model.eval()(x), dense.eval()(x)) for x in batches]
        return [((a - b).square().sum() / b.square().sum()).item() for p in pairs for a, b in p]


def test_better_than_the_weights_alone_on_unseen_images(network):
    dense, alone = copy.deepcopy(network), sparsify_(copy.deepcopy(network), PLAN)
    calibrate_(network, PLAN, Task(_images(20)))
    unseen = _images(5, seed=1)
    calibrated = sum(_output_errors(network, dense, unseen))
    assert calibrated < 0.6 * sum(_output_errors(alone, dense, unseen))


def test_never_worse_than_the_weights_alone_on_the_same_images(network):
    report = calibrate_(network, PLAN, Task(_images(6)))
    assert list(report.layers) == list(PLAN)
    for layer in report.layers.values():
        assert 0 < layer.error <= layer.error_alone


def test_exact_at_full_rank(network):
    dense = copy.deepcopy(network)
    report = calibrate_(network, FULL, Task(_images(6)))
    assert all(layer.error < 1e-5 for layer in report.layers.values())
    assert max(_output_errors(network, dense, _images(3, seed=1))) < 1e-8


def test_more_rank_is_less_error(plain):
    errors = []
    for rank in (1, 2, 4, 8, 16):
        model = copy.deepcopy(plain)
        plan = {"conv2": LayerPlan((rank, rank), "rows"), "fc6": LayerPlan((rank,))}
        report = calibrate_(model, plan, Task(_images(6)))
        errors.append([layer.error for layer in report.layers.values()])
    for layer in zip(*errors):
        assert list(layer) == sorted(layer, reverse=True)


def test_the_reported_error_is_that_of_the_running_network(network):
    images = _images(3)
    dense = copy.deepcopy(network)
    report = calibrate_(network, PLAN, Task(images))

    def outputs(model, name, module_of):
        """Of one layer, before norm and activation, as rows."""
        found = []
        module = module_of(model.get_submodule(name))
        handle = module.register_forward_hook(lambda m, x, y: found.append(y))
        with torch.no_grad():
            for x in images:
                model.eval()(x)
        handle.remove()
        return torch.cat([(y.movedim(1, -1) if y.dim() == 4 else y).flatten(0, -2) for y in found])

    def plain_convolution(layer):
        if hasattr(layer, "norm"):
            layer.norm = layer.activation = None
        return layer

    for name, layer in report.layers.items():
        # Norm and activation are taken off a copy of the layer under test, so nothing above it
        # matters any more.
        y = outputs(copy.deepcopy(dense), name, plain_convolution)
        compact = network.get_submodule(name)
        last = "fusion" if isinstance(compact, SparseFusionConv2d) else "expand"
        z = outputs(network, name, lambda m, last=last: getattr(m, last))
        variance = (y - y.mean(0)).square().sum(1).mean()
        expected = (y - z).square().sum(1).mean() / variance
        assert layer.samples == len(y)
        assert layer.error == pytest.approx(expected.item(), rel=1e-3), name


def test_a_shared_head_is_calibrated_on_all_levels(plain):
    report = calibrate_(plain, PLAN, Task(_images(2)))
    # 24x28 images at strides 2 and 4; the window of 3x2 with padding 1 adds a column.
    assert report.layers["head"].outputs == 12 * 15 + 6 * 8
    assert report.layers["head"].samples == 2 * (12 * 15 + 6 * 8)


def test_sizes_before_and_after(plain):
    before = sum(p.numel() for p in plain.parameters())
    report = calibrate_(plain, PLAN, Task(_images(2)))
    after = sum(p.numel() for p in plain.parameters())
    assert report.parameters == (before, after)
    assert sum(a - b for a, b in (r.weights for r in report.layers.values())) == before - after
    assert report.layers["conv2"].weights == (16 * 12 * 9, 5 * (5 * 12 + 16) + 4 * (4 * 12 + 16))
    rows = report.layers["fc6"].outputs
    assert report.layers["fc6"].multiply_adds == (rows * 144 * 20, rows * 6 * 164)
    saved = sum(a - b for a, b in (r.multiply_adds for r in report.layers.values()))
    assert report.multiply_adds[0] - report.multiply_adds[1] == saved


def test_modes_frozen_parameters_and_norms_are_kept(network):
    network.train()
    network.conv3.eval()
    network.conv2.weight.requires_grad_(False)
    norms = network.conv2.norm, network.conv3.norm
    calibrate_(network, PLAN, Task(_images(2)))
    assert network.training and network.conv2.training and not network.conv3.training
    assert not any(p.requires_grad for p in network.conv2.sparse.parameters())
    assert all(p.requires_grad for p in network.conv3.sparse.parameters())
    assert (network.conv2.norm, network.conv3.norm) == norms
    if norms[0] is not None:
        assert norms[0].training and not norms[1].training


def test_the_same_run_gives_the_same_weights(plain):
    twin = copy.deepcopy(plain)
    torch.manual_seed(1)
    calibrate_(plain, PLAN, Task(_images(4)))
    torch.manual_seed(2)
    calibrate_(twin, PLAN, Task(iter(_images(4))))
    for a, b in zip(plain.state_dict().values(), twin.state_dict().values()):
        assert torch.equal(a, b)


def test_a_sample_of_positions_is_enough(plain, monkeypatch):
    dense, all_of_it = copy.deepcopy(plain), copy.deepcopy(plain)
    calibrate_(all_of_it, PLAN, Task(_images(20)))
    monkeypatch.setattr("sparsedet.compress.fit.ROWS", 800)
    monkeypatch.setattr("sparsedet.compress.fit.PATCHES", 4)
    report = calibrate_(plain, PLAN, Task(_images(20)))
    assert report.layers["conv2"].samples == pytest.approx(800, rel=0.15)
    unseen = _images(5, seed=1)
    errors = [sum(_output_errors(model, dense, unseen)) for model in (plain, all_of_it)]
    assert errors[0] < 1.5 * errors[1]


def test_too_few_samples_hold_to_the_weights_and_say_so(plain):
    dense, alone = copy.deepcopy(plain), sparsify_(copy.deepcopy(plain), PLAN)
    images = [x[:, :, :12, :12] for x in _images(1)]
    report = calibrate_(plain, PLAN, Task(images))
    assert "held to its dense weights: 36 samples of 108 numbers" in report.layers["conv2"].note
    unseen = _images(5, seed=1)
    assert sum(_output_errors(plain, dense, unseen)) < 1.1 * sum(
        _output_errors(alone, dense, unseen)
    )


def test_a_layer_that_never_runs_keeps_its_projection(plain):
    plain.spare = nn.Conv2d(16, 16, 3)
    plan = {name: LayerPlan((4, 4), "rows") for name in ("spare", "conv3", "conv2")}
    alone = sparsify_(copy.deepcopy(plain), plan)
    report = calibrate_(plain, plan, Task(_images(2)))
    assert list(report.layers) == ["conv2", "conv3", "spare"]
    assert "never" in report.layers["spare"].note
    assert report.layers["spare"].error is None
    assert torch.equal(plain.spare.dense_weight(), alone.spare.dense_weight())


def test_ranks_above_what_a_layer_can_use(plain):
    dense = copy.deepcopy(plain)
    plan = {"conv2": LayerPlan((20, 30), "rows"), "conv1": LayerPlan((12, 14), "rows")}
    calibrate_(plain, plan, Task(_images(4)))
    assert plain.conv1.ranks == (12, 14)
    assert max(_output_errors(plain, dense, _images(2, seed=1))) < 1e-8


def test_inputs_that_are_not_finite(plain):
    before = dict(plain.named_modules())
    images = _images(2)
    images[1][0, 0, 3, 3] = float("nan")
    with pytest.raises(InputError, match="conv2: its inputs are not finite"):
        calibrate_(plain, PLAN, Task(images))
    assert dict(plain.named_modules()) == before


def test_an_interruption_leaves_the_model_as_it_was(plain):
    plain.train()
    before = dict(plain.named_modules())
    images, calls = _images(2), 0

    def forward(model, x):
        nonlocal calls
        calls += 1
        if calls == 9:
            assert isinstance(model.conv2, SparseFusionConv2d)
            raise KeyboardInterrupt
        model(x)

    with pytest.raises(KeyboardInterrupt):
        calibrate_(plain, PLAN, Task(images, forward))
    assert dict(plain.named_modules()) == before
    assert plain.training and plain.conv2.training
    assert not any(module._forward_pre_hooks for module in plain.modules())


def test_forward_must_make_the_same_calls(plain):
    before = dict(plain.named_modules())

    def other_boxes(model, x):
        compressed = isinstance(model.conv2, SparseFusionConv2d)
        model(x[:, :, :16] if compressed else x)

    with pytest.raises(ValueError, match="conv3 is called differently .* same proposals"):
        calibrate_(plain, PLAN, Task(_images(2), other_boxes))
    assert dict(plain.named_modules()) == before


def test_no_images(plain):
    with pytest.raises(InputError, match="needs inputs to calibrate on"):
        calibrate_(plain, PLAN, Task([]))


def test_fully_connected_layers_alone():
    torch.manual_seed(0)
    mixing = torch.randn(60, 60) * 0.7 ** torch.arange(60)
    model = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 30, bias=False))
    dense = copy.deepcopy(model)
    plan = {"0": LayerPlan((8,)), "2": LayerPlan((10,))}
    rows = [torch.randn(50, 60) @ mixing.T for _ in range(8)]
    report = calibrate_(model, plan, Task(rows[:4]), progress=True)
    assert isinstance(model[0], LowRankLinear) and isinstance(model[2], LowRankLinear)
    assert all(layer.error < layer.error_alone for layer in report.layers.values())
    alone = sparsify_(copy.deepcopy(dense), plan)
    errors = [
        sum((m(x) - dense(x)).square().sum().item() for x in rows[4:]) for m in (model, alone)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_a_layer_that_stays_dense_learns_to_read_compact_inputs(network):
    """Against an independent solution: ridge regression, held to the dense weights."""
    images = _images(40)
    model = copy.deepcopy(network)
    plan = {name: PLAN[name] for name in ("conv2", "conv3", "fc6")}
    calibrate_(model, plan, Task(images, answers=["fc7", "head"]))

    assert type(model.fc7) is nn.Linear and type(model.head) is nn.Conv2d
    inputs, outputs = _rows(model, "fc7", images)[0], _rows(network, "fc7", images)[1]
    x, y = (rows.double() - rows.double().mean(0) for rows in (inputs, outputs))
    weight = network.fc7.weight.detach().double()
    covariance = x.T @ x / len(x)
    ridge = 0.2 * x.shape[1] / len(x) * covariance.diagonal().mean()
    covariance += ridge * torch.eye(len(covariance))
    expected = torch.linalg.solve(covariance, x.T @ y / len(x) + ridge * weight.T).T
    torch.testing.assert_close(model.fc7.weight.double(), expected, rtol=1e-3, atol=1e-4)

    without = copy.deepcopy(network)
    calibrate_(without, plan, Task(images))
    for layer in ("fc7", "head"):
        expected = _rows(network, layer, _images(20, seed=1))[1]
        errors = [
            (_rows(m, layer, _images(20, seed=1))[1] - expected).square().mean()
            for m in (model, without)
        ]
        assert errors[0] < errors[1]


@torch.no_grad()
def _rows(model, name, images):
    """Inputs and outputs of a layer over all images, one position a row."""
    seen = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, args, output: seen.append((args[0], output))
    )
    model.eval()
    for image in images:
        model(image)
    handle.remove()
    return [torch.cat([x.transpose(1, -1).flatten(0, -2) for x in part]) for part in zip(*seen)]


def test_an_answer_that_is_in_the_plan_becomes_compact(network):
    calibrate_(network, PLAN, Task(_images(2), answers=["fc7"]))
    assert isinstance(network.fc7, LowRankLinear)


def test_answers_that_are_no_layers(network):
    with pytest.raises(InputError, match="answers: 'fc9' is not a dense layer"):
        calibrate_(network, PLAN, Task(_images(2), answers=["fc9"]))
