"""A run that was stopped and resumed gives the weights, bit for bit, of one that was not."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.engine import HookBase
from detectron2.modeling import build_model

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.modeling import dense_config
from sparsedet.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
INPUT: {{MIN_SIZE_TRAIN: [64, 80, 96], MIN_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 6
  STEPS: [5]
  WARMUP_ITERS: 2
  BASE_LR: 0.01
  CHECKPOINT_PERIOD: 3
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small models on a busy machine wait for threads most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(write_config):
    return write_config(CONFIG)


class Stop(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise KeyboardInterrupt


def train(config, folder, *opts, resume=False, stop=None, interrupted=False, kind=Trainer):
    """Train in this process, to the end or through the iteration ``stop``."""
    trainer = kind(load_config(str(config), [*opts, "OUTPUT_DIR", str(folder)]))
    trainer.resume_or_load(resume=resume)
    if stop is not None:
        trainer.register_hooks([Stop(stop)])
    with pytest.raises(KeyboardInterrupt) if interrupted or stop is not None else nullcontext():
        trainer.train()
    return trainer


def state(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def assert_equal(a, b):
    """The same to the last bit, and momentum, too."""
    assert a["model"].keys() == b["model"].keys()
    assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])
    momenta = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (a, b)]
    assert momenta[0] and all(
        torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"])
        for i in momenta[0]
    )


PLAIN = ()
AMP = ("SOLVER.AMP.ENABLED", "True")


@pytest.mark.parametrize(
    "before, after",
    [
        (PLAIN, PLAIN),
        (("DATALOADER.NUM_WORKERS", 2),) * 2,
        (("DATALOADER.NUM_WORKERS", 2), PLAIN),
        (AMP, AMP),
        (("DATALOADER.ASPECT_RATIO_GROUPING", "False"),) * 2,
        (("MODEL.VGG.NORM", "BN", "TEST.PRECISE_BN.ENABLED", "True", "TEST.EVAL_PERIOD", 2),) * 2,
    ],
    ids=["plain", "workers", "other-workers", "bfloat16", "not-grouped", "precise-bn"],
)
def test_resumed_is_as_if_never_stopped(config, tmp_path, before, after):
    same = ("TEST.PRECISE_BN.NUM_ITER", 2)
    train(config, tmp_path / "whole", *after, *same)
    train(config, tmp_path / "resumed", *before, *same, stop=3)
    resumed = train(config, tmp_path / "resumed", *after, *same, resume=True)
    assert resumed.start_iter in (3, 4)  # 4 where the best model was saved later
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "resumed"))


def test_resumed_distillation_is_as_if_never_stopped(config, tmp_path):
    plan = {"backbone.conv3_1": {"pattern": "rows", "ranks": [4, 4]}}
    values = yaml.safe_load(CONFIG)
    values["MODEL"].update(META_ARCHITECTURE="SparsifiedModel", SPARSE_FUSION={"PLAN": plan})
    config.write_text(yaml.safe_dump(values))
    teacher = build_model(dense_config(load_config(str(config))))
    SparseDetCheckpointer(teacher, str(tmp_path)).save("teacher")
    opts = ("MODEL.DISTILLATION.TEACHER", str(tmp_path / "teacher.pth"))
    train(config, tmp_path / "whole", *opts)
    train(config, tmp_path / "resumed", *opts, stop=4)
    train(config, tmp_path / "resumed", *opts, resume=True)
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "resumed"))


def test_a_longer_run_is_as_if_it_had_been_long_from_the_beginning(config, tmp_path):
    """Also when the best model, which is saved after the last iteration, is the last checkpoint."""
    steady = ("SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", 0, "TEST.EVAL_PERIOD", 100)
    train(config, tmp_path / "whole", *steady)
    train(config, tmp_path / "resumed", *steady, "SOLVER.MAX_ITER", 4)
    assert (tmp_path / "resumed" / "last_checkpoint").read_text() == "model_best.pth"
    assert train(config, tmp_path / "resumed", *steady, resume=True).start_iter == 4
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "resumed"))


def test_a_seed_that_was_drawn_stays(config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "sparsedet")
    drawn = train(config, tmp_path / "resumed", "SEED", -1, stop=3).cfg.SEED
    assert drawn >= 0 and f"that of this run is {drawn}" in caplog.text
    resumed = train(config, tmp_path / "resumed", "SEED", -1, resume=True)
    assert resumed.cfg.SEED == drawn
    train(config, tmp_path / "whole", "SEED", drawn)
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "resumed"))
    assert train(config, tmp_path / "other", "SEED", -1, stop=0).cfg.SEED != drawn


def test_a_stop_between_the_last_two_checkpoints(config, tmp_path):
    train(config, tmp_path)
    final = state(tmp_path)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    train(config, tmp_path, resume=True)
    assert_equal(final, state(tmp_path))


class Rates(HookBase):
    """The rate of each iteration."""

    def __init__(self):
        self.rates = {}

    def before_step(self):
        self.rates[self.trainer.iter] = [g["lr"] for g in self.trainer.optimizer.param_groups]


@pytest.mark.parametrize(
    "opts",
    [
        ("SOLVER.BASE_LR", 0.002),
        ("SOLVER.STEPS", "(4,)", "SOLVER.GAMMA", 0.5),
        ("SOLVER.MAX_ITER", 8, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
        ("SOLVER.WARMUP_ITERS", 6, "SOLVER.WARMUP_FACTOR", 0.1),
    ],
)
def test_a_changed_rate_or_schedule_is_honoured(config, tmp_path, caplog, opts):
    train(config, tmp_path, stop=2)
    rates = []
    for folder, resume in ((tmp_path, True), (tmp_path / "fresh", False)):
        trainer = Trainer(load_config(str(config), [*opts, "OUTPUT_DIR", str(folder)]))
        trainer.resume_or_load(resume=resume)
        recorder = Rates()
        trainer.register_hooks([recorder])
        trainer.train()
        rates.append(recorder.rates)
    resumed, fresh = rates
    assert resumed == {i: fresh[i] for i in range(3, trainer.max_iter)}
    for key in opts[::2]:
        assert f"{key} " in caplog.text  # what changed is logged


def test_other_changes_of_the_optimizer_are_honoured(config, tmp_path):
    train(config, tmp_path, stop=2)
    opts = ("SOLVER.MOMENTUM", 0.5, "SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.AMP.ENABLED", "True")
    group = train(config, tmp_path, *opts, resume=True).optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("MODEL.BACKBONE.FREEZE_AT", 2), "FREEZE_AT is 2, but the run in .* began with 0"),
        (("SOLVER.BIAS_LR_FACTOR", 2.0), "BIAS_LR_FACTOR is 2.0, but"),
        (("SOLVER.WEIGHT_DECAY_NORM", 0.1), "WEIGHT_DECAY_NORM is 0.1, but"),
        (("SOLVER.WEIGHT_DECAY_BIAS", 0.1), "WEIGHT_DECAY_BIAS is 0.1, but"),
        (("MODEL.VGG.NORM", "BN"), "trained other parameters than this config"),
        (("SEED", 7), "SEED is 7, but the run in .* began with 1"),
        (("SOLVER.MAX_ITER", 2), "MAX_ITER is 2, but the run in .* has done 3 iterations"),
    ],
)
def test_what_a_run_keeps_to_its_end(config, tmp_path, opts, message):
    train(config, tmp_path, "MODEL.VGG.NORM", "FrozenBN", stop=2)
    with pytest.raises(InputError, match=message) as error:
        train(config, tmp_path, "MODEL.VGG.NORM", "FrozenBN", *opts, resume=True)
    assert "\n" not in str(error.value)


class Scored(Trainer):
    """Whose evaluations have results, or errors, that were fixed before."""

    results = []

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        result = cls.results.pop(0)
        if isinstance(result, type):
            raise result
        return {"bbox": {"AP50": result}}


def test_the_best_model_is_the_best_of_the_whole_run(config, tmp_path):
    def run(*results, **kwargs):
        Scored.results = list(results)
        run_ = train(config, tmp_path, "TEST.EVAL_PERIOD", 2, kind=Scored, **kwargs)
        assert not Scored.results
        return run_

    run(99.69, stop=2)
    assert state(tmp_path, "model_best")["iteration"] == 1
    train(config, tmp_path, "TEST.EVAL_PERIOD", 0, resume=True, stop=3)  # evaluates nothing
    assert run(5.24, KeyboardInterrupt, resume=True, interrupted=True).start_iter == 3
    assert state(tmp_path, "model_best")["iteration"] == 1
    # The last checkpoint is of iteration 5, whose evaluation was interrupted.
    run(99.7, resume=True)
    assert state(tmp_path, "model_best")["iteration"] == 6


def test_an_evaluation_that_was_interrupted_is_done_when_resumed(config, tmp_path):
    opts = ("TEST.EVAL_PERIOD", 3)
    Scored.results = [KeyboardInterrupt]
    train(config, tmp_path, *opts, kind=Scored, interrupted=True)
    Scored.results = [50, 40]
    train(config, tmp_path, *opts, kind=Scored, resume=True)
    assert not Scored.results and state(tmp_path, "model_best")["iteration"] == 2


def test_an_interruption_in_the_last_iteration_evaluates_and_keeps_nothing(config, tmp_path):
    Scored.results = []
    train(config, tmp_path, "TEST.EVAL_PERIOD", 100, kind=Scored, stop=5)
    assert not (tmp_path / "model_best.pth").exists()


def test_a_run_that_begins_anew_in_the_folder_of_another(config, tmp_path):
    train(config, tmp_path)
    old = state(tmp_path)
    train(config, tmp_path, "SEED", 2, stop=0)  # before its first checkpoint
    assert train(config, tmp_path, "SEED", 2, resume=True).start_iter == 0
    new = state(tmp_path)["model"]
    assert not all(torch.equal(new[key], old["model"][key]) for key in new)


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 5000), os.remove])
def test_a_damaged_newest_checkpoint_names_the_one_to_use(config, tmp_path, damage):
    train(config, tmp_path, stop=5)
    final = state(tmp_path)
    for name in ("model_final.pth", "model_0000005.pth"):
        damage(tmp_path / name)
    whole = tmp_path / "model_0000002.pth"
    message = f"model_final.pth, the newest .* go on from {whole}.* write {whole.name} into "
    with pytest.raises(InputError, match=message) as error:
        train(config, tmp_path, resume=True)
    assert "\n" not in str(error.value)
    (tmp_path / "last_checkpoint").write_text(whole.name)
    train(config, tmp_path, resume=True)
    assert_equal(final, state(tmp_path))
    for path in tmp_path.glob("*.pth"):
        os.truncate(path, 5000)
    with pytest.raises(InputError, match="no other in .* is whole; start again without --resume"):
        train(config, tmp_path, resume=True)


def test_a_checkpoint_of_an_earlier_version_is_taken_up(config, tmp_path, caplog):
    train(config, tmp_path, stop=2)
    path = tmp_path / "model_0000002.pth"
    old = torch.load(path, weights_only=True)
    old["trainer"] = {"iteration": 2}
    torch.save(old, path)
    assert train(config, tmp_path, resume=True).start_iter == 3
    assert "of an earlier version" in caplog.text
