"""detectron2's default trainer, on CPUs too, with both evaluations, whose runs resume exactly."""

from __future__ import annotations

import logging
import weakref

import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint import SparseDetCheckpointer, model_class_names
from ..compat import precise_bn_loader
from ..data import CheckedDatasetMapper
from ..data.class_order import training_records
from ..data.loader import TrainLoader, build_train_loader, end_with_parent
from ..data.proposals import proposal_file, with_proposals
from ..data.randomness import STEP, derived_seed
from ..detection.build import building
from ..detection.classes import training_class_names
from ..detection.predictor import refuse_narrow
from ..errors import InputError
from ..evaluation import best_metric, build_evaluator
from .amp import CPUAMPTrainer
from .best import BestCheckpointer
from .distillation import build_distiller
from .resume import check_settings, run_settings, with_seed


class Trainer(DefaultTrainer):
    """detectron2's ``DefaultTrainer``, with some differences.

    - CPU training works in several processes (Gloo), and in bfloat16 with SOLVER.AMP.ENABLED;
    - evaluation is of all that the model gives, with VOC mAP beside COCO AP;
    - the best checkpoint (of the first test set; AP50 of boxes, or see ``best_metric``) is kept as
      ``model_best.pth``;
    - weights of another architecture or preprocessing are refused;
    - classes are matched by name between training sets, test sets and weights;
    - with MODEL.DISTILLATION.TEACHER, a compressed model learns from its dense twin as well;
    - a run that was killed and resumed goes on as if nothing had been: all that is random in an
      iteration follows from the seed and the iteration, see :class:`TrainLoader` for the data, and
      a checkpoint holds the rest. Without SEED, one is drawn, logged and kept in the checkpoints.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        self.seed_is_given = cfg.SEED >= 0
        cfg = with_seed(DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()))
        seed_all_rng(cfg.SEED + comm.get_rank())
        model = self.build_model(cfg)
        model.class_names = training_class_names(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        on_cpu = cfg.MODEL.DEVICE == "cpu"
        # What is trained; checkpoints hold the model itself.
        trained = build_distiller(cfg, model) if cfg.MODEL.DISTILLATION.TEACHER else model
        if comm.get_world_size() > 1:
            trained = DistributedDataParallel(
                trained,
                device_ids=None if on_cpu else [comm.get_local_rank()],
                broadcast_buffers=False,
                # Or it sorts the gradients anew after the first iteration, also of a resumed run,
                # and more than two processes would add them up in another order.
                find_unused_parameters=on_cpu and comm.get_world_size() > 2,
            )
        kind = SimpleTrainer
        if cfg.SOLVER.AMP.ENABLED:
            kind = CPUAMPTrainer if on_cpu else AMPTrainer
        self._trainer = kind(trained, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SparseDetCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list:
        built = super().build_hooks()
        tests = self.cfg.DATASETS.TEST
        # With several test sets, detectron2 puts their names before the metrics.
        best = best_metric(self.cfg)
        metric = f"{tests[0]}/{best}" if len(tests) > 1 else best
        # Before the writers, which come last in the main process.
        place = len(built) - comm.is_main_process()
        built.insert(place, BestCheckpointer(self.checkpointer, metric))
        return built

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        if len(set(comm.all_gather(self.start_iter))) > 1:
            raise InputError(
                f"{self.cfg.OUTPUT_DIR}: not all machines find the last checkpoint there; "
                "OUTPUT_DIR must be a folder that they share"
            )
        if not self.start_iter and comm.is_main_process():
            self.checkpointer.forget_last()
        self.data_loader.seed, self.data_loader.start = self.cfg.SEED, self.start_iter
        test = self.cfg.TEST
        for hook in self._hooks:
            if isinstance(hook, hooks.PreciseBN) and test.EVAL_PERIOD > 0:
                loader = precise_bn_loader(hook)
                loader.seed = self.cfg.SEED
                loader.start = self.start_iter // test.EVAL_PERIOD * test.PRECISE_BN.NUM_ITER

    def before_train(self) -> None:
        super().before_train()
        if not self.start_iter:
            return
        # A kill may have come between a checkpoint and what follows it in the same iteration.
        self.iter = self.storage.iter = self.start_iter - 1
        follow = [hooks.EvalHook, BestCheckpointer]
        if self.start_iter == self.max_iter:  # model_final.pth
            follow.insert(0, hooks.PeriodicCheckpointer)
        for hook in self._hooks:
            if isinstance(hook, tuple(follow)):
                hook.after_step()

    def run_step(self) -> None:
        seed_all_rng(derived_seed(self.cfg.SEED, STEP, comm.get_rank(), self.iter))
        super().run_step()

    def after_train(self) -> None:
        if self.iter < self.max_iter:  # an error, or Ctrl-C: nothing is to be evaluated or kept
            kept = (hooks.EvalHook, BestCheckpointer)
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, kept)]
        super().after_train()

    def state_dict(self) -> dict:
        state = TrainerBase.state_dict(self)
        # It is one more after the last iteration, when the best model may be saved.
        state["iteration"] = min(self.iter, self.max_iter - 1)
        return {**state, "_trainer": self._trainer.state_dict(), "settings": run_settings(self.cfg)}

    def load_state_dict(self, state: dict) -> None:
        """Take up a run; rates and their schedule are the config's, whatever they were before.

        Raises:
            InputError: the config changes what a run keeps to its end, or ends it earlier.
        """
        done, folder = state["iteration"] + 1, self.cfg.OUTPUT_DIR
        if done > self.max_iter:
            raise InputError(
                f"SOLVER.MAX_ITER is {self.max_iter}, but the run in {folder} has done {done} "
                "iterations; raise it, or take the checkpoints there as they are"
            )
        if "settings" not in state:
            logging.getLogger(__name__).warning(
                "The checkpoint is of an earlier version: its momentum and its place in the order "
                "of images are not known"
            )
            TrainerBase.load_state_dict(self, state)
            return
        if not self.seed_is_given:
            self.cfg = with_seed(self.cfg, state["settings"]["SEED"])
        check_settings(state["settings"], run_settings(self.cfg), folder)
        given = [_without_parameters(group) for group in self.optimizer.param_groups]
        rates = self.scheduler.base_lrs
        TrainerBase.load_state_dict(self, state)
        # What is not in it, such as the state of an AMP that is new, is as at the beginning.
        try:
            self._trainer.load_state_dict({**self._trainer.state_dict(), **state["_trainer"]})
        except ValueError as error:
            raise InputError(
                f"{folder}: the run there trained other parameters than this config does; set the "
                "MODEL keys back, or start another run without --resume, from MODEL.WEIGHTS"
            ) from error
        self.scheduler.base_lrs = rates
        groups = self.optimizer.param_groups
        for group, values, rate in zip(groups, given, self.scheduler.get_lr()):
            group.update(values, lr=rate)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with building("the model"):
            model = super().build_model(cfg)
        model.register_forward_pre_hook(refuse_narrow)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer):
        with building("the schedule"):
            return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        records = training_records(cfg, training_class_names(cfg))
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        return build_train_loader(cfg, records, CheckedDatasetMapper(cfg, True), seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
        loader = build_detection_test_loader(
            with_proposals(records, proposal_file(cfg, "TEST", dataset_name)),
            mapper=CheckedDatasetMapper(cfg, False),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        loader.worker_init_fn = end_with_parent
        return loader

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        if evaluators is None:
            names = model_class_names(model)
            evaluators = [cls.build_evaluator(cfg, dataset) for dataset in cfg.DATASETS.TEST]
            for evaluator in evaluators:
                if names and hasattr(evaluator, "match"):
                    evaluator.match(names)
        # Each process has its own running statistics; the first one's are saved, so those count.
        if comm.get_world_size() > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)
        return super().test(cfg, model, evaluators)


def _without_parameters(group: dict) -> dict:
    return {key: value for key, value in group.items() if key != "params"}
