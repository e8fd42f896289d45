"""The trainer, of a classifier: other images in, another metric out."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..classification.evaluator import TopKEvaluator
from ..classification.mapper import ClassificationMapper
from ..classification.records import labelled_records, training_records
from ..data.class_order import dataset_classes
from ..data.loader import TrainLoader, build_train_loader, end_with_parent
from ..detection.classes import training_class_names
from ..errors import InputError
from .trainer import Trainer

TEST_BATCH = 16  # images in one call; the middle of each has the same size


class ClassifierTrainer(Trainer):
    """:class:`Trainer` on the labels of images; the checkpoint of the best top-1 is kept."""

    def __init__(self, cfg: CfgNode):
        if cfg.MODEL.DISTILLATION.TEACHER:
            raise InputError("MODEL.DISTILLATION.TEACHER: only detectors learn from a teacher")
        super().__init__(cfg)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        records = training_records(cfg, training_class_names(cfg))
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        return build_train_loader(cfg, records, ClassificationMapper(cfg, True), seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        records = labelled_records(dataset_name, dataset_classes(dataset_name))
        return DataLoader(
            MapDataset(DatasetFromList(records, copy=False), ClassificationMapper(cfg, False)),
            batch_size=TEST_BATCH,
            sampler=InferenceSampler(len(records)),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            collate_fn=list,
            worker_init_fn=end_with_parent,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> TopKEvaluator:
        return TopKEvaluator(dataset_name)
