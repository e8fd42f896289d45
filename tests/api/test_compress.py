"""The verb: any module with batches, a detector with images, and what it refuses."""

import copy

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from torch import nn

from sparsedet.api import choose_task, compress_
from sparsedet.compress import Task, layer_times, planning, resolve_plan, sparsify_
from sparsedet.compress.targets import Cost
from sparsedet.detection.config import load_config
from sparsedet.detection.load import load_model
from sparsedet.detection.task import DetectionTask
from sparsedet.errors import InputError
from sparsedet.exporting.api import export
from sparsedet.layers import LowRankLinear, SparseFusionConv2d


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(layer_times, "SECONDS", 0)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 100),
    )


def batches(count=6):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 3, 16, 16, generator=generator) for _ in range(count)]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def detector(kitchen):
    return load_model(kitchen / "config.yaml", kitchen / "model.pth")


def test_any_module_with_batches():
    model = network()
    before, modules = parameters(model), dict(model.named_children())
    result = compress_(model, batches=batches(), params=4, flops=4)
    assert before / parameters(model) >= 4 and result.model is model
    assert result.parameters == (before, parameters(model))
    assert result.multiply_adds[0] / result.multiply_adds[1] >= 4
    kinds = {type(model[int(name)]) for name in result.layers}
    assert kinds == {SparseFusionConv2d, LowRankLinear}
    assert all(model[int(name)] is modules[name] for name in modules if name not in result.layers)
    assert result.notes == [] and result.milliseconds is not None


def test_a_forward_function_and_answers_that_stay_dense():
    model = nn.ModuleDict({"body": network(), "head": nn.Linear(100, 200)})

    def forward(model, batch):
        return model["head"](model["body"](batch["x"]))

    inputs = [{"x": x} for x in batches()]
    result = compress_(copy.deepcopy(model), batches=inputs, forward=forward, params=4)
    assert "head" in result.layers
    task = Task(inputs, forward, answers=["head"])
    result = compress_(model, task=task, params=1.5)
    assert "head" not in result.layers and type(model["head"]) is nn.Linear


def test_the_same_inputs_give_the_same_plan_and_no_time_is_measured(monkeypatch):
    def measure(*args, **kwargs):
        raise AssertionError("planning measured time")

    monkeypatch.setattr(planning, "measure_latency", measure)
    plans = [compress_(network(), batches=batches(), params=3).plan for _ in range(2)]
    assert plans[0] == plans[1]
    with pytest.raises(AssertionError, match="measured time"):
        compress_(network(), batches=batches(), params=3, no_slower=True)


def measures(monkeypatch, rest, compact):
    """Let every dense layer take one millisecond."""
    cost = Cost(lambda name, plan: 1.0 if plan is None else compact, rest)
    monkeypatch.setattr(planning, "measure_latency", lambda *args, **kwargs: cost)


def test_a_rule_that_is_dropped_is_said(monkeypatch):
    measures(monkeypatch, rest=0.0, compact=2.0)
    result = compress_(network(), batches=batches(), params=3, no_slower=True)
    (note,) = result.notes
    assert "that rule was dropped" in note and f"{len(result.layers)} layers are slower" in note
    assert f"note: {note}" in str(result)


def test_a_time_below_that_of_what_stays_dense(monkeypatch):
    measures(monkeypatch, rest=3.0, compact=0.1)
    model = network()
    before = dict(model.named_modules())
    with pytest.raises(InputError) as caught:
        compress_(model, batches=batches(2), latency=2.5)
    assert str(caught.value) == (
        "out of reach: latency 2.5x would be 2.4 ms of 6, and what stays dense takes 3 by itself; "
        "ask for at most 1.8x"
    )
    assert dict(model.named_modules()) == before


def test_a_missed_target_is_said():
    model = network()
    result = compress_(model, batches=batches(), params=3)
    result.multiply_adds = (2.0, 1.0)
    (line,) = planning.missed({"params": 3, "flops": 2.5}, result)
    assert line == "flops: 2.5x was asked, 2.00x was reached"


def test_a_plan_is_written_printed_and_applied_again(tmp_path):
    model = network()
    result = compress_(model, batches=batches(), params=3)
    result.save(tmp_path / "compact")
    files = {"model.pth", "plan.yaml", "report.md", "report.html", "layers.png"}
    assert {path.name for path in (tmp_path / "compact").iterdir()} == files
    text = str(result)
    assert text.startswith("parameters (millions): ") and "largest errors of " in text
    assert text.splitlines()[-1].startswith("took ") and ", planning " in text

    again = network()
    compress_(again, batches=batches(), plan=tmp_path / "compact" / "plan.yaml")
    other = network()
    compress_(other, batches=batches(), plan=result.plan)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, other.state_dict()[name])

    plan = yaml.safe_load((tmp_path / "compact" / "plan.yaml").read_text())
    loaded = sparsify_(network(1), resolve_plan(network(1), plan), project=False)
    weights = torch.load(tmp_path / "compact" / "model.pth", weights_only=True)["model"]
    loaded.load_state_dict(weights)
    x = batches(1)[0]
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(InputError, match="exists already"):
        result.save(tmp_path / "compact")


def test_weights_that_are_not_finite_are_neither_saved_nor_exported(detector, tmp_path):
    model = network()
    result = compress_(model, batches=batches(), params=3)
    next(model.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(InputError, match=r"compact: not written: \S+ has values that are not"):
        result.save(tmp_path / "compact")
    detector.backbone.conv1_1.bias.data[0] = float("inf")
    with pytest.raises(InputError, match=r"a.onnx: not written: backbone.conv1_1.bias has values"):
        export(detector, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_detector_and_images(detector, photos, tmp_path):
    result = compress_(detector, images=photos, num_images=6, params=2)
    assert {type(m) for m in detector.modules()} >= {SparseFusionConv2d, LowRankLinear}
    assert not any("cls_score" in name or "bbox_pred" in name for name in result.layers)
    result.save(tmp_path / "compact")
    loaded = load_model(tmp_path / "compact" / "config.yaml")
    for name, weight in detector.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_every_model_sees_its_own_proposals(kitchen, photos):
    """Also where two models are compressed on the very same images, and by the very same task."""
    cfg = load_config(str(kitchen / "config.yaml"))
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(build_model(cfg).eval())
    shared = DetectionTask.from_images(cfg, str(photos), 4)
    plan = {"backbone.conv3_1": {"pattern": "rows", "ranks": [8, 8]}}
    boxes = []
    for model in models:
        result = compress_(model, task=shared, plan=plan)
        recorded = [shared._recorded[id(batch)][0, 1] for batch in shared.batches]
        boxes.append([proposals[0].proposal_boxes.tensor for proposals, _ in recorded])
        assert result.layers["backbone.conv3_1"].error is not None
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*boxes))

    torch.manual_seed(2)
    alone = build_model(cfg).eval()
    compress_(alone, task=DetectionTask(shared.batches, cfg), plan=plan)
    for name, weight in models[1].state_dict().items():
        assert torch.equal(weight, alone.state_dict()[name]), name


def test_an_interruption_leaves_the_model_as_it_was(monkeypatch):
    model = network()
    before = dict(model.named_modules())

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsedet.compress.api.compare_latency", stop)
    with pytest.raises(KeyboardInterrupt):
        compress_(model, batches=batches(), params=3)
    assert dict(model.named_modules()) == before


def test_a_detector_with_batches_of_inputs(detector, photos):
    inputs = DetectionTask.from_images(detector.cfg, str(photos), 3).batches
    task = choose_task(detector, None, 100, inputs, None, False)
    assert type(task) is DetectionTask and task.cfg is detector.cfg


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "nothing to do: give a target"),
        ({"params": 2, "plan": {"0": {}}}, "a plan and a target .params. contradict"),
        ({"params": 0.5}, "target params 0.5: must be a factor of at least 1"),
        ({"flops": "3x"}, "target flops 3x: must be a factor"),
        ({"params": 2, "patterns": ["stripes"]}, "there is no 'stripes'"),
        ({"params": 2, "batches": []}, "needs inputs to calibrate on"),
        ({"params": 2, "batches": None}, "Sequential is not a detectron2 model: give it batches"),
        ({"params": 2, "images": "photos"}, "images and batches contradict"),
        ({"params": 2, "task": Task([1])}, "give either task, or images or batches"),
        ({"params": 1000}, "out of reach: params 1000x"),
        ({"params": 2, "include": ["conv*"]}, "'conv.': the model has no such layer"),
        ({"plan": "no.yaml"}, "no.yaml: cannot be read"),
        ({"plan": {"9": {"rank": 3}}}, "'9': the model has no such layer"),
    ],
)
def test_bad_requests_are_one_line_and_change_nothing(arguments, message):
    model = network()
    before = dict(model.named_modules())
    with pytest.raises(InputError, match=message) as caught:
        compress_(model, **{"batches": batches(2), **arguments})
    assert "\n" not in str(caught.value)
    assert dict(model.named_modules()) == before


def test_what_is_no_model(kitchen):
    with pytest.raises(InputError, match="takes a model in memory, not str"):
        compress_("config.yaml", images="photos", params=2)
    with pytest.raises(InputError, match="a yaml file or a CfgNode, not int"):
        load_model(3)
    bare = build_model(load_config(str(kitchen / "config.yaml")))
    with pytest.raises(InputError, match="carries no config"):
        compress_(bare, images="photos", params=2)
    with pytest.raises(InputError, match="give batches as well"):
        compress_(network(), forward=lambda model, batch: model(batch), params=2)


def test_a_model_in_training_is_run_in_eval_mode_and_stays_in_training():
    """Or its batch norms would learn from being timed."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32)
    )
    before = copy.deepcopy(dict(model.named_buffers()))
    compress_(model, batches=batches(2), plan={"3": {"pattern": "rows", "ratio": 4}})
    assert isinstance(model[3], SparseFusionConv2d) and all(m.training for m in model.modules())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
