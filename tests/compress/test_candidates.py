"""Layers that no compact one can replace stay as they are, and are named."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsedet.compress import Request, Task, compress_
from sparsedet.compress.candidates import dense_layers, left_alone
from sparsedet.errors import InputError


class Odd(nn.Module):
    """One layer of each kind that must stay, between two that may change."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.same = nn.Conv2d(32, 32, 3, padding="same")
        self.mirrored = nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect")
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 32, 3, padding=1))
        self.up = nn.ConvTranspose2d(32, 32, 2, stride=2)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.encode, self.decode = nn.Linear(32, 32), nn.Linear(32, 32)
        self.decode.weight = self.encode.weight
        self.read = nn.Linear(32, 32)
        self.last = nn.Linear(32, 512)

    def forward(self, x):
        x = F.relu(self.normed(self.mirrored(self.same(F.relu(self.first(x))))))
        x = self.up(F.avg_pool2d(x, 4)).flatten(2).transpose(1, 2)
        x, _ = self.attention(x, x, x)
        x = self.decode(F.relu(self.encode(x))) + F.linear(x, self.read.weight)
        return self.last(x)


REASONS = {
    "same": "padding",
    "mirrored": "padding",
    "normed": "computed from others",
    "up": "transposed",
    "attention.out_proj": "attention",
    "encode": "shares",
    "decode": "shares",
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Odd().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [F.interpolate(torch.randn(2, 3, 4, 4), size=16, mode="bilinear") for _ in range(6)]


def test_why_each_stays(model):
    reasons = left_alone(model)
    assert reasons.keys() == REASONS.keys()
    assert all(REASONS[name] in reason for name, reason in reasons.items())
    assert dense_layers(model).keys() == {"first", "read", "last"}


def test_the_result_names_them_and_ties_stay(model, batches):
    result = compress_(model, Task(batches), Request(params=1.1))
    assert set(result.layers) <= {"first", "last"}
    assert model.encode.weight is model.decode.weight
    notes = "\n".join(result.notes)
    assert all(name in notes for name in REASONS)
    assert "left alone: encode, decode (it shares its weights with another layer)" in str(result)


def test_tied_weights_count_once(model, batches):
    tied = sum(p.numel() for p in model.parameters())
    result = compress_(model, Task(batches), Request(params=1.1))
    assert result.parameters[0] == tied >= 1.1 * result.parameters[1]


def test_a_layer_whose_weights_others_read_is_refused(model, batches):
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match="^read: something else .* reads its weights"):
        compress_(model, Task(batches), Request(plan={"read": {"rank": 4}}))
    assert torch.equal(model(batches[0]), before(batches[0]))
    with pytest.raises(InputError, match="must stay: attention reads its weights directly"):
        compress_(model, Task(batches), Request(plan={"attention.out_proj": {"rank": 4}}))
