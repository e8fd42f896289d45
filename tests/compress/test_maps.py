"""Fully connected layers that read flattened maps mix the channels first (Tucker-2)."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsedet
from sparsedet.benchmark.counting import count_call
from sparsedet.compress import LayerPlan, Task, plan_to_entries, resolve_plan, sparsify_
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.curves import maps_options
from sparsedet.compress.links import find_links
from sparsedet.compress.maps import ChannelBasis, mixed
from sparsedet.compress.profile import profile_layers
from sparsedet.compress.surgery import compact_twin
from sparsedet.compress.targets import _own_costs, _Search
from sparsedet.errors import InputError
from sparsedet.layers import LowRankLinear, TuckerLinear


def layer(**changes):
    torch.manual_seed(0)
    sizes = {"in_features": 6 * 9, "out_features": 8, "rank": 5, "channel_rank": 2, "positions": 9}
    return TuckerLinear(**{**sizes, **changes})


def test_equals_convolutions_one_after_another():
    """A 1x1 convolution to fewer channels, one over the whole window, and one to the outputs."""
    tucker = layer().double()
    maps = torch.randn(4, 6, 3, 3, dtype=torch.double)
    y = F.conv2d(maps, tucker.mix.weight)
    y = F.conv2d(y, tucker.reduce.weight.view(5, 2, 3, 3))
    y = F.conv2d(y, tucker.expand.weight[:, :, None, None], tucker.expand.bias)
    torch.testing.assert_close(tucker(maps.flatten(1)), y.flatten(1), rtol=0, atol=1e-12)
    dense = tucker.to_dense()
    assert (dense.in_features, dense.out_features) == (54, 8)
    torch.testing.assert_close(tucker(maps.flatten(1)), dense(maps.flatten(1)), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in tucker.parameters()) == 2 * 6 + 5 * (2 * 9 + 8) + 8
    assert tucker(maps[:0].flatten(1)).shape == (0, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"positions": 4}, "54 features are not those of 4 positions"),
        ({"channel_rank": 7}, "channel_rank 7 of 6 channels"),
        ({"rank": 9}, "rank 9 of a 18x8 layer"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        layer(**change)


def test_mixed_is_a_product_at_each_position():
    x, mix = torch.randn(4, 6, 9), torch.randn(2, 6)
    expected = torch.stack([x[:, :, p] @ mix.T for p in range(9)], dim=2).flatten(1)
    torch.testing.assert_close(mixed(x.flatten(1), mix), expected)


def test_directions_of_the_channels_lose_the_least_on_white_positions():
    """Against an independent way: the truncated SVD of all positions' weights on white channels."""
    torch.manual_seed(0)
    weight = torch.randn(8, 6 * 9, dtype=torch.double)
    x = torch.randn(500, 6, 9, dtype=torch.double) * torch.tensor([9.0, 5, 3, 1, 0.3, 0.1])[:, None]
    basis = ChannelBasis(weight, 9, x.flatten(1))
    covariance = torch.einsum("ncp,ndp->cd", x, x)
    rows = weight.view(8, 6, 9).transpose(1, 2).flatten(0, 1)
    values = torch.linalg.svdvals(rows @ torch.linalg.cholesky(covariance))
    for count in range(1, 7):
        mix, back = basis.directions(count)
        apart = rows - rows @ back @ mix
        lost = torch.trace(apart @ covariance @ apart.T)
        assert lost.item() == pytest.approx(
            values[count:].square().sum().item(), rel=0.02, abs=1e-6
        )


@pytest.mark.parametrize("rank", [3, 8])
def test_with_all_channels_the_projection_is_the_truncated_svd(rank):
    torch.manual_seed(0)
    dense = nn.Linear(54, 8).double()
    entry = LayerPlan((rank,), channel_rank=6, positions=9)
    compact = sparsify_(nn.Sequential(copy.deepcopy(dense)), {"0": entry})[0]
    lost = (compact.to_dense().weight - dense.weight).square().sum()
    values = torch.linalg.svdvals(dense.weight)
    torch.testing.assert_close(lost, values[rank:].square().sum(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(compact.expand.bias, dense.bias)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(5),
        nn.Flatten(),
        nn.Linear(16 * 25, 40),
        nn.ReLU(),
        nn.Linear(40, 30),
    )


def images(count=24):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, 3, 20, 20, generator=generator) for _ in range(count)]


def test_which_layers_read_flattened_maps():
    survey = Task(images(3)).survey(network())
    assert survey.positions == {"4": 25}
    turned = network()
    turned[3] = Turned()
    assert Task(images(3)).survey(turned).positions == {}
    pooled = network()
    pooled[2], pooled[4] = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 40)
    assert Task(images(3)).survey(pooled).positions == {}


class Turned(nn.Module):
    """Flattens with the channels last."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def test_a_layer_of_few_mixtures_is_found_whole():
    """Its weights mix the 16 channels to 3; no other low rank of as many weights can give it."""
    model = network()
    with torch.no_grad():
        mixing, reading = torch.randn(3, 16), torch.randn(20, 3, 25)
        made = torch.einsum("rjp,jc->rcp", reading, mixing).flatten(1)
        model[4].weight.copy_(torch.randn(40, 20) @ made / 200)
    entry = LayerPlan((20,), channel_rank=3, positions=25)
    result = calibrate_(copy.deepcopy(model), {"4": entry}, Task(images()))
    before, after = result.layers["4"].weights
    assert (before, after) == (16000, 3 * 16 + 20 * (75 + 40))
    assert result.layers["4"].error < 1e-5
    plain = LayerPlan((after // 440,))
    result = calibrate_(copy.deepcopy(model), {"4": plain}, Task(images()))
    assert result.layers["4"].error > 0.1


def test_it_is_fitted_to_the_inputs_that_it_gets():
    """From the weights alone more is lost, and the layer's own bias would leave the mean wrong."""
    model, entry = network(), LayerPlan((12,), channel_rank=4, positions=25)
    compact = copy.deepcopy(model)
    result = calibrate_(compact, {"4": entry}, Task(images())).layers["4"]
    assert result.error < 0.8 * result.error_alone
    x = torch.cat(images())
    with torch.no_grad():
        expected, found = model[:5](x), compact[:5](x)
    torch.testing.assert_close(found.mean(0), expected.mean(0), rtol=0, atol=1e-4)
    variance = (expected - expected.mean(0)).square().sum()
    error = (found - expected).square().sum() / variance
    assert result.error == pytest.approx(error.item(), rel=0.02)


def test_options_say_what_the_fit_finds():
    model = network()
    profile = profile_layers(model, Task(images()), record=False)
    options = [x for x in profile.layers["4"].options if x.plan and x.plan.channel_rank]
    assert {x.plan.channel_rank for x in options} == {1, 2, 4}
    for option in options[:: len(options) // 6]:
        result = calibrate_(network(), {"4": option.plan}, Task(images())).layers["4"]
        assert result.weights[1] == option.weights
        assert result.multiply_adds[1] == result.outputs * option.multiply_adds
        # Positions are not as uncorrelated as the option counts on: the fit can do better.
        assert 0.4 * option.error < result.error < 1.25 * option.error


def test_what_is_counted_and_asked_for_is_what_comes():
    model, task = network(), Task(images())
    before = sum(p.numel() for p in model.parameters())
    result = sparsedet.compress_(model, task=task, params=9, flops=1.5)
    assert isinstance(model[4], TuckerLinear) and result.notes == []
    assert before / sum(p.numel() for p in model.parameters()) >= 9
    counted, _ = count_call(model, images(1)[0])
    assert counted == result.multiply_adds[1]


def test_of_fewer_channels():
    """The search counts a narrower layer as it comes: its reduction has as many inputs as ever."""
    model, task = network(), Task(images())
    links = find_links(model, task)[0]
    profile = profile_layers(model, task, links=links)
    search = _Search(profile, _own_costs(profile), {"params": 1.0, "flops": 1.0})
    tucker = [x for x in profile.layers["4"].options if x.plan and x.plan.channel_rank == 2][0]
    pair = search.width["0"]
    search._choose("4", tucker)
    search._choose(pair, next(x for x in search.options[pair] if x.channels == 8))
    cost, plan = search._cost("4"), search.plan()
    assert plan["4"].in_channels == 200
    result = sparsedet.compress_(model, task=task, plan=plan_to_entries(plan))
    assert isinstance(model[4], TuckerLinear) and model[4].mix.weight.shape[:2] == (2, 8)
    weights = sum(p.numel() for name, p in model[4].named_parameters() if "bias" not in name)
    assert cost["params"] * profile.parameters == pytest.approx(weights)
    assert cost["flops"] * profile.multiply_adds == pytest.approx(
        result.layers["4"].multiply_adds[1]
    )
    counted, _ = count_call(model, images(1)[0])
    assert counted == result.multiply_adds[1]


@pytest.mark.parametrize("channels, positions", [(4, 9), (12, 9), (36, 9), (64, 49)])
@pytest.mark.parametrize("outputs", [3, 27, 54, 107])
def test_every_option_is_one_that_can_be(channels, positions, outputs):
    """Ranks are rounded, and there are layers whose largest is no multiple of 4."""
    torch.manual_seed(0)
    dense, x = nn.Linear(channels * positions, outputs), torch.randn(60, channels * positions)
    weight = dense.weight.detach()
    for option in maps_options(dense, positions, x, x @ weight.T, weight, 0.1):
        compact = compact_twin(dense, option.plan, project=False)
        weights = sum(p.numel() for p in compact.parameters()) - outputs
        assert weights == option.weights < dense.weight.numel()


def test_ranks_that_a_narrower_layer_cannot_have():
    """A plan that is read says so in one line; one that is searched for has no larger ones."""
    plan = {"0": {"out_channels": 2}, "4": {"rank": 4, "channel_rank": 4, "positions": 25}}
    with pytest.raises(InputError, match="'4': rank 4 of 4 channels, 50 in is too much; at most"):
        sparsedet.compress_(network(), task=Task(images(3)), plan=plan)
    plan = {"4": {"rank": 20, "out_channels": 10}}
    with pytest.raises(InputError, match="'4': rank 20, 10 out is too much; at most rank 10"):
        resolve_plan(network(), plan)
    model, task = network(), Task(images(3))
    profile = profile_layers(model, task, links=find_links(model, task)[0])
    search = _Search(profile, _own_costs(profile), {"params": 1.0})
    options = [x for x in profile.layers["4"].options if x.plan and x.plan.channel_rank == 4]
    search._choose("4", options[0])
    for pair in (search.width["0"], search.width["4"]):
        search._choose(pair, search.options[pair][-1])
    plan = search.plan()
    assert (plan["4"].in_channels, plan["4"].out_channels) == (50, 5)
    assert plan["4"].channel_rank == 2 and plan["4"].ranks == (5,)
    sparsedet.compress_(model, task=task, plan=plan_to_entries(plan))
    assert model[4].mix.weight.shape[:2] == (2, 2) and model[4].rank == 5


def test_a_plan_is_read_again():
    model = network()
    plan = {"4": LayerPlan((12,), channel_rank=4, positions=25), "6": LayerPlan((5,))}
    entries = plan_to_entries(plan, model)
    assert entries["4"] == {
        "rank": 12, "channel_rank": 4, "positions": 25, "before": 16000, "after": 1744
    }  # fmt: skip
    assert resolve_plan(model, entries) == plan
    assert str(plan["4"]) == "rank 12 of 4 channels"
    sparsify_(model, plan)
    assert type(model[4]) is TuckerLinear and type(model[6]) is LowRankLinear


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"rank": 4, "positions": 25}, "keys must be {rank} or {channel_rank, positions, rank}"),
        ({"rank": 4, "channel_rank": 4, "positions": 7}, "positions must divide 400 features"),
        ({"rank": 4, "channel_rank": 4, "positions": 0}, "positions must divide 400 features"),
        ({"rank": 4, "channel_rank": 17, "positions": 25}, "channel_rank must be 1 to 16, not 17"),
        ({"rank": 26, "channel_rank": 1, "positions": 25}, "rank must be 1 to 25, not 26"),
    ],
)
def test_entries_that_do_not_fit(entry, message):
    with pytest.raises(InputError, match=message):
        resolve_plan(network(), {"4": entry})


@pytest.mark.parametrize(
    "name, precision", [("m.onnx", "f32"), ("m.xml", "f32"), ("m.onnx", "int8")]
)
def test_a_detector_of_it_is_saved_optimized_and_exported(
    name, precision, kitchen, photos, tmp_path, picture
):
    # As many proposals as there are: another number in every picture.
    opts = ["MODEL.RPN.POST_NMS_TOPK_TEST", 1000]
    model = sparsedet.load_model(sparsedet.load_config(kitchen / "config.yaml", opts))
    fc6 = "roi_heads.box_head.fc6"
    plan = {fc6: {"rank": 16, "channel_rank": 16, "positions": 49}}
    sparsedet.compress_(model, images=photos, plan=plan).save(tmp_path / "compact")
    loaded = sparsedet.load_model(tmp_path / "compact" / "config.yaml")
    assert isinstance(loaded.get_submodule(fc6), TuckerLinear)
    image = picture(64, 96, 1)
    expected = sparsedet.Predictor.of(model).run(image)["instances"]
    for again in (loaded, sparsedet.optimize_for_inference(loaded)):
        found = sparsedet.Predictor.of(again).run(image)["instances"]
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    apart = sparsedet.export(loaded, tmp_path / name, precision=precision, images=photos)
    assert apart.matched
    if precision == "f32":
        assert apart.unmatched == 0 and apart.score < 1e-4


@pytest.mark.parametrize("dead", [0, 5, 16])
def test_channels_that_are_never_used(dead):
    """One that reaches a million times as far as the others, and some of nothing at all."""
    model = network()
    scale = torch.ones(16)
    scale[0] = 1e6
    scale[16 - dead :] = 0
    with torch.no_grad():
        model[0].weight *= scale[:, None, None, None]
        model[0].bias *= scale
    result = sparsedet.compress_(model, batches=images(), params=6)
    assert all(p.isfinite().all() for p in model.parameters())
    assert result.parameters[0] / result.parameters[1] >= 6
