from collections import OrderedDict

import pytest
import torch
from torch import nn

from sparsedet.compress import LayerPlan, Sensitivity, Task, output_sensitivities
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.sensitivity import FLOOR, unweighed
from sparsedet.errors import InputError


def outer(w):
    """What :class:`Sensitivity` makes of w w^T."""
    matrix = torch.outer(w, w).double()
    return matrix / matrix.diagonal().mean() + FLOOR * torch.eye(len(w))


def test_unweigh_is_the_inverse():
    torch.manual_seed(0)
    a = torch.randn(6, 6)
    sensitivity = Sensitivity(a @ a.T)
    for y in (torch.randn(6), torch.randn(6, 4)):
        torch.testing.assert_close(sensitivity.unweigh(sensitivity.weigh(y)).float(), y)
        assert Sensitivity().weigh(y) is y and Sensitivity().unweigh(y) is y


def test_weighed_length_is_the_metric():
    torch.manual_seed(0)
    a, y = torch.randn(6, 6), torch.randn(6).double()
    matrix = (a @ a.T).double()
    expected = y @ matrix @ y / matrix.diagonal().mean() + FLOOR * y @ y
    torch.testing.assert_close(Sensitivity(matrix).weigh(y).square().sum(), expected)


def test_one_answer_gives_its_own_gradient():
    """With one number as the answer, the random sign drops out, and the sensitivity is exact."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 1, bias=False))
    layers = {"0": model[0], "1": model[1]}
    sensitivities = output_sensitivities(model, layers, [model[2]], [torch.randn(7, 5)])
    last = model[2].weight[0].detach()
    for name, gradient in {"1": last, "0": last @ model[1].weight.detach()}.items():
        root = sensitivities[name].root
        torch.testing.assert_close(root @ root.T, outer(gradient), rtol=1e-4, atol=1e-5)


def test_positions_of_a_convolution_and_work_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 1, 1, bias=False))
    model[0].bias.data.fill_(100.0)  # the ReLU lets everything pass
    sensitivities = output_sensitivities(
        model, {"0": model[0]}, [model[2]], [torch.rand(2, 2, 5, 5)]
    )
    root = sensitivities["0"].root
    expected = outer(model[2].weight.detach().flatten())
    torch.testing.assert_close(root @ root.T, expected, rtol=1e-4, atol=1e-5)


def test_layers_without_influence_have_no_metric():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.answer = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            self.idle(x)
            return self.answer(self.used(x))

    net = Net()
    layers = {"used": net.used, "idle": net.idle}
    assert set(output_sensitivities(net, layers, [net.answer], [torch.randn(3, 4)])) == {"used"}
    assert output_sensitivities(net, layers, [], [torch.randn(3, 4)]) == {}
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_with_the_layer(value):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = value
    layers = {"first": model[0], "second": model[1]}
    with pytest.raises(InputError, match="^(first|second): the answers do not depend on it"):
        output_sensitivities(model, layers, [model[2]], [torch.rand(8, 4)])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 2),
    )


@torch.no_grad()
def answer_error(plan, weighed):
    """Mean square error of the answers of a calibrated network, on other data."""
    torch.manual_seed(1)
    batches = [torch.randn(64, 3, 8, 8) for _ in range(30)]
    compact = network()
    layers = {name: compact.get_submodule(name) for name in ("0", "2", "5")}
    sensitivities = (
        output_sensitivities(compact, layers, [compact[7]], batches) if weighed else None
    )
    calibrate_(compact, plan, Task(batches), sensitivities=sensitivities)
    x = torch.randn(512, 3, 8, 8)
    return (compact(x) - network()(x)).square().mean().item()


@pytest.mark.parametrize(
    "plan",
    [{"5": LayerPlan((4,))}, {"2": LayerPlan((4, 4), "checkerboard"), "5": LayerPlan((4,))}],
    ids=["fully connected", "and a convolution"],
)
def test_the_answers_err_less(plan):
    assert answer_error(plan, weighed=True) < 0.8 * answer_error(plan, weighed=False)


def test_exact_at_full_rank():
    full = {"2": LayerPlan((24, 24), "checkerboard"), "5": LayerPlan((32,))}
    assert answer_error(full, weighed=True) < 1e-8


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


class Deformable(nn.Module):
    """Runs, and has no derivative, as detectron2's deformable convolutions on a CPU."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return NoDerivative.apply(x)


def test_layers_before_what_has_no_derivative_are_weighed_alike():
    torch.manual_seed(0)
    names = ("before", "deformable", "relu", "after")
    modules = (nn.Linear(4, 4), Deformable(), nn.ReLU(), nn.Linear(4, 4))
    model = nn.Sequential(OrderedDict(zip(names, modules)))
    model.aside, model.answer = nn.Linear(4, 4), nn.Linear(4, 1, bias=False)

    def forward(model, x):
        y = model.after(model.relu(model.deformable(model.before(x)))) + model.aside(x)
        return model.answer(y)

    batches = [torch.randn(50, 4) for _ in range(3)]
    layers = {name: model.get_submodule(name) for name in ("before", "after", "aside")}
    found = output_sensitivities(model, layers, [model.answer], batches, forward)
    assert not found["before"].known and found["before"].root is None
    expected = outer(model.answer.weight[0].detach()).float()  # exact: the answer is one number
    for name in ("after", "aside"):
        root = found[name].root
        torch.testing.assert_close((root @ root.T).float(), expected)
    (line,) = unweighed(found)
    assert line.startswith("all outputs were weighed alike in 1 layers, from before to before")
    assert unweighed({"after": found["after"]}) == []
