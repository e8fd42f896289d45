"""A convolution with groups is fitted as that many convolutions side by side."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsedet.compress import LayerPlan, Request, Task, compress_
from sparsedet.compress.fit import ConvolutionFit
from sparsedet.compress.patches import outputs_at, split_patches, take_patches
from sparsedet.compress.profile import profile_layers
from sparsedet.compress.sensitivity import Sensitivity
from sparsedet.compress.surgery import compact_twin

GROUPS, PLAN = 3, LayerPlan((6, 3), "checkerboard")


def _convolution():
    torch.manual_seed(0)
    return nn.Conv2d(12, 18, 3, stride=2, padding=1, groups=GROUPS)


def _parts(conv):
    """The convolutions that it consists of."""
    for weight, bias in zip(conv.weight.chunk(GROUPS), conv.bias.chunk(GROUPS)):
        part = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        part.weight.data, part.bias.data = weight.data, bias.data
        yield part


def _all_patches(conv, x):
    count = conv(x)[:, 0].numel()
    return take_patches(conv, x, torch.arange(count))


def test_patches_give_the_outputs():
    conv, x = _convolution(), torch.randn(2, 12, 9, 7)
    patches = _all_patches(conv, x)
    expected = conv(x).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(outputs_at(conv, patches), expected, rtol=1e-4, atol=1e-5)
    for part, images, seen in zip(_parts(conv), x.chunk(GROUPS, 1), split_patches(conv, patches)):
        torch.testing.assert_close(seen, _all_patches(part, images))


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
def test_every_group_is_fitted_by_itself(weighted):
    conv = _convolution()
    x = F.interpolate(torch.randn(4, 12, 8, 8), scale_factor=4, mode="bilinear")
    blocks = [torch.randn(6, 6) for _ in range(GROUPS)]
    whole = Sensitivity(torch.block_diag(*(b @ b.T for b in blocks))) if weighted else Sensitivity()
    compact = compact_twin(conv, PLAN, project=True)
    fit = ConvolutionFit(conv, compact, whole)
    patches = _all_patches(conv, x)
    fit.add(patches.clone(), outputs_at(conv, patches))
    fit.solve()
    errors, variances = [], []
    parts = zip(_parts(conv), whole.split(GROUPS), x.chunk(GROUPS, 1))
    for group, (part, sensitivity, images) in enumerate(parts):
        alone = compact_twin(part, LayerPlan((2, 1), "checkerboard"), project=True)
        fit_alone = ConvolutionFit(part, alone, sensitivity)
        seen = _all_patches(part, images)
        outputs = outputs_at(part, seen)
        fit_alone.add(seen, outputs)
        fit_alone.solve()
        rows = slice(6 * group, 6 * (group + 1))
        torch.testing.assert_close(
            compact.dense_weight()[rows], alone.dense_weight(), rtol=1e-3, atol=1e-5
        )
        torch.testing.assert_close(compact.fusion.bias[rows], alone.fusion.bias)
        errors.append(fit_alone.error)
        variances.append(sensitivity.weigh(outputs.T).double().var(1, correction=0).sum().item())
    mean = sum(e * v for e, v in zip(errors, variances)) / sum(variances)
    assert fit.error == pytest.approx(mean, rel=1e-3)
    assert fit.error < fit.error_alone


def _grouped_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=4),
    )


def _images():
    torch.manual_seed(1)
    return [F.interpolate(torch.randn(2, 3, 5, 5), size=20, mode="bilinear") for _ in range(6)]


def test_plans_reach_grouped_convolutions_but_no_depthwise_one():
    profile = profile_layers(_grouped_network(), Task(_images()))
    assert set(profile.layers) == {"0", "2", "6"}
    for name, groups in (("2", 2), ("6", 4)):
        plans = [option.plan for option in profile.layers[name].options[1:]]
        assert plans and all(rank % groups == 0 for plan in plans for rank in plan.ranks)
        errors = [option.error for option in profile.layers[name].options]
        assert min(errors[1:]) < 0.1 and max(errors) < 1


def test_a_target_is_met_with_grouped_convolutions():
    model = _grouped_network()
    result = compress_(model, Task(_images()), Request(flops=2.5, include=["2", "6"]))
    before, after = result.multiply_adds
    assert set(result.layers) == {"2", "6"}
    assert before / after >= 2.5 and not result.notes
