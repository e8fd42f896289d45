"""detectron2's default trainer, on CPUs too, with both evaluations and the best model kept."""

from __future__ import annotations

import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint import SparseDetCheckpointer, model_class_names
from ..data import CheckedDatasetMapper
from ..data.class_order import training_records
from ..detection.build import building
from ..detection.classes import training_class_names
from ..detection.predictor import refuse_narrow
from ..evaluation import build_evaluator
from ..timing import now
from .distillation import build_distiller

BEST_METRIC = "bbox/AP50"


class Trainer(DefaultTrainer):
    """detectron2's ``DefaultTrainer``, with some differences.

    - CPU training works in several processes (Gloo), and in bfloat16 with SOLVER.AMP.ENABLED;
    - evaluation gives COCO AP and VOC mAP side by side;
    - the checkpoint of the best AP50 (of the first test set) is kept as ``model_best.pth``;
    - weights of another architecture or preprocessing are refused;
    - classes are matched by name between training sets, test sets and weights;
    - with MODEL.DISTILLATION.TEACHER, a compressed model learns from its dense twin as well.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        model.class_names = training_class_names(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        on_cpu = cfg.MODEL.DEVICE == "cpu"
        # What is trained; checkpoints hold the model itself.
        trained = build_distiller(cfg, model) if cfg.MODEL.DISTILLATION.TEACHER else model
        if comm.get_world_size() > 1:
            devices = None if on_cpu else [comm.get_local_rank()]
            trained = DistributedDataParallel(trained, device_ids=devices, broadcast_buffers=False)
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
        if comm.is_main_process() and self.cfg.TEST.EVAL_PERIOD > 0 and tests:
            # With several test sets, detectron2 puts their names before the metrics.
            metric = BEST_METRIC if len(tests) == 1 else f"{tests[0]}/{BEST_METRIC}"
            best = hooks.BestCheckpointer(self.cfg.TEST.EVAL_PERIOD, self.checkpointer, metric)
            # Before the writers, which come last.
            built.insert(-1, best)
        return built

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
    def build_train_loader(cls, cfg: CfgNode):
        records = training_records(cfg, training_class_names(cfg))
        mapper = CheckedDatasetMapper(cfg, True)
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = CheckedDatasetMapper(cfg, False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        if evaluators is None:
            names = model_class_names(model)
            evaluators = [
                build_evaluator(cfg, dataset, class_names=names) for dataset in cfg.DATASETS.TEST
            ]
        return super().test(cfg, model, evaluators)


class CPUAMPTrainer(SimpleTrainer):
    """bfloat16 autocast on CPU: no gradient scaling, because its exponent is that of float32."""

    def run_step(self) -> None:
        assert self.model.training, "[CPUAMPTrainer] model was changed to eval mode!"
        start = now()
        data = next(self._data_loader_iter)
        data_time = now() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()
