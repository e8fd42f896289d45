"""How a model uses its layers: what is counted, and when it is counted anew."""

import torch
from torch import nn

from sparsedet.compress import Task
from sparsedet.compress.narrow import keep_outputs, read_fewer


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(36, 5))


def _counted(survey):
    return survey.outputs, survey.multiply_adds


def test_what_is_counted():
    batches = [torch.randn(1, 3, 5, size) for size in (5, 7, 6)]
    model = _model()[:2]
    survey = Task(batches).survey(model)
    assert survey.outputs == {"0": 12.0, "1": 12.0}
    assert survey.before == {"0": 0.0, "1": 12.0 * 216}
    assert survey.multiply_adds == 12 * (216 + 32)
    assert survey.batch is batches[2]
    shapes = {name: [tuple(x.shape) for x in calls] for name, calls in survey.inputs.items()}
    assert shapes == {"0": [(1, 3, 5, 6)], "1": [(1, 8, 3, 4)]}
    assert all(x.device.type == "meta" for calls in survey.inputs.values() for x in calls)


def test_a_model_is_looked_at_once_until_it_changes():
    model, task, runs = _model(), Task([torch.randn(1, 3, 5, 5)] * 9), []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    before = task.survey(model)
    assert task.survey(model) is before and len(runs) == 3

    kept = torch.arange(3)
    model[1] = read_fewer(model[1], model[1].weight[:, kept])
    model[0] = keep_outputs(model[0], kept)
    assert task.survey(model).multiply_adds == 9 * (27 * 3 + 3 * 4) + 36 * 5
    assert len(runs) == 6
    task.start(model)
    task.survey(model)
    assert len(runs) == 9


def test_models_of_one_task_are_kept_apart():
    task = Task([torch.randn(1, 3, 5, 5)])
    one, other = _model(), nn.Sequential(nn.Conv2d(3, 2, 3))
    assert _counted(task.survey(one)) != _counted(task.survey(other))
    assert task.survey(one) is task.survey(one)
    assert task.on(task.batches).survey(one) is not task.survey(one)
