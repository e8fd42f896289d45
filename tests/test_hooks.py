"""Models are left as they were, whatever happens meanwhile."""

import pytest
import torch
from torch import nn

from sparsedet.hooks import attached, evaluating


def _hooks(model):
    return [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks) if h]


def test_hooks_run_in_the_block_and_are_gone_after():
    model, calls = nn.Sequential(nn.ReLU(), nn.Tanh()), []
    with attached(m.register_forward_hook(lambda m, x, y: calls.append(m)) for m in model):
        model(torch.zeros(1))
    model(torch.zeros(1))
    assert calls == list(model) and not _hooks(model)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_hooks_are_gone_after_an_error(error):
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(error):
        with attached(m.register_forward_pre_hook(print) for m in model):
            assert len(_hooks(model)) == 2
            raise error
    assert not _hooks(model)


def test_a_hook_that_cannot_be_registered_takes_the_others_with_it():
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(AttributeError, match="register_forward_hook"):
        with attached(m.register_forward_hook(print) for m in (*model, None)):
            raise AssertionError("the block does not begin")
    assert not _hooks(model)


def test_every_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.Dropout()).train()
    model[0][0].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes
