"""Outputs that one layer alone reads are found, and no others: something else would miss them."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from sparsedet.compress import Task
from sparsedet.compress.links import Link, find_links


def _links(model, shape=(2, 3, 12, 12), **options):
    torch.manual_seed(0)
    before = copy.deepcopy(model.state_dict())
    links, reasons = find_links(model, Task([torch.randn(shape)], **options))
    assert not set(links) & set(reasons)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return links, reasons


class _Net(nn.Module):
    """Two convolutions and a head, with something else between or beside them."""

    def __init__(self, between=None, spy=None):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between or nn.ReLU()
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)
        self.spy = spy

    def forward(self, x):
        a = self.first(x)
        y = self.head(F.relu(self.second(self.between(a))))
        return self.spy(self, a, y) if self.spy else y


def test_a_chain_through_what_works_on_each_channel():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.MaxPool2d(2),
        Conv2d(8, 8, 3, norm=FrozenBatchNorm2d(8), activation=F.relu),
        nn.AvgPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(32, 12),
        nn.ReLU(inplace=True),
        nn.Linear(12, 7),
    )
    links, reasons = _links(model)
    assert links == {"0": Link("4", ("1", "2")), "4": Link("8"), "8": Link("10")}
    assert "caller" in reasons["10"]


def test_a_bottleneck_keeps_what_is_summed():
    torch.manual_seed(0)
    model = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 1])
    links, reasons = _links(model.eval(), (1, 3, 64, 64))
    assert set(links) == {
        f"layer{stage}.{block}.conv{i}"
        for stage, block in ((1, 0), (2, 0), (2, 1), (3, 0), (4, 0))
        for i in (1, 2)
    }
    assert links["layer2.1.conv1"] == Link("layer2.1.conv2", ("layer2.1.bn1",))
    assert "layer2.0.conv3" in reasons and "layer2.0.downsample.0" in reasons


def test_a_head_that_all_levels_share():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, padding=1)
            self.first, self.second = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x):
            y = self.body(x)
            return [self.second(F.relu(self.first(level))) for level in (y, F.max_pool2d(y, 2))]

    links, _ = _links(Levels())
    assert links == {"body": Link("first"), "first": Link("second")}


@pytest.mark.parametrize(
    "between",
    [
        nn.GroupNorm(4, 8),
        nn.Softmax(dim=1),
        nn.ChannelShuffle(4),
        nn.ConvTranspose2d(8, 8, 1),
        nn.LocalResponseNorm(3),
    ],
)
def test_what_mixes_channels_between(between):
    links, reasons = _links(_Net(between))
    assert "first" in reasons and set(links) == {"second"}


def _returned(model, a, y):
    return {"answer": y, "features": [a]}


def _compared(model, a, y):
    return y * (a[:, :1] > 0)  # gradients do not show it


def _counted(model, a, y):
    with torch.no_grad():
        return y + a.mean(1, keepdim=True)


def _as_numpy(model, a, y):
    return y + float(a.detach().numpy()[:, 5].sum())


def _by_weights(model, a, y):
    return y + F.conv2d(a, torch.ones(4, 8, 1, 1))


@pytest.mark.parametrize("spy", [_returned, _compared, _counted, _as_numpy, _by_weights])
def test_what_else_reads_an_output(spy):
    links, reasons = _links(_Net(spy=spy))
    assert "first" in reasons and set(links) == {"second"}


def test_what_a_fixed_module_reads_itself():
    class Chooser(nn.Module):
        def forward(self, a):
            with torch.no_grad():
                return a[:, 5].flatten(1).argmax(1)

    class Net(_Net):
        def __init__(self):
            super().__init__()
            self.chooser = Chooser()

        def forward(self, x):
            a = self.first(x)
            return self.head(self.second(a)).flatten(2)[:, :, self.chooser(a)]

    links, reasons = _links(Net(), fixed=["chooser"])
    assert "first" in reasons and set(links) == {"second"}


def test_others_beside_it_groups_and_answers():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
            self.c, self.d = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
            self.e, self.f = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            y = self.c(torch.cat([self.a(x), self.b(x)], dim=1))
            return self.f(self.e(self.d(y)))

    links, reasons = _links(Two(), answers=["f"])
    assert links == {}
    assert "together" in reasons["a"] and "together" in reasons["b"]
    assert "groups" in reasons["c"] and "groups" in reasons["d"]
    assert "answers" in reasons["e"] and "answers" in reasons["f"]


def test_a_layer_that_did_not_run_may_read_anything():
    model = _Net()
    model.spare = nn.Conv2d(8, 8, 1)
    links, reasons = _links(model)
    assert links == {} and "spare sees nothing" in reasons["first"]


def test_a_head_that_finds_nothing_shows_nothing():
    class Net(_Net):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            a = self.first(x)
            rows = a.movedim(1, -1)[a.amax(1) > 1e6]  # none
            return self.head(self.second(a)), self.fc2(self.fc1(rows))

    links, reasons = _links(Net())
    assert links == {} and "fc1 sees nothing" in reasons["first"]
