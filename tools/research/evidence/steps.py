"""What can be done in a row: from the parent's model to its own, and to the numbers of it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from sparsedet.api import compress_
from sparsedet.benchmark.counting import count_multiply_adds
from sparsedet.compress.survey import count_parameters
from sparsedet.detection.config import load_config
from sparsedet.detection.images import load_images
from sparsedet.detection.load import load_model
from sparsedet.detection.predictor import Predictor
from sparsedet.detection.task import DetectionTask
from sparsedet.exporting.api import export
from sparsedet.exporting.evaluate import evaluate_export
from sparsedet.files import new_folder
from sparsedet.runtime.detector import Detector

from .records import ACCURACIES
from .studies import Row
from .training import accuracy, train

INT8_IMAGES = 30


@dataclass
class Outcome:
    """A model and what is recorded of it.

    Attributes:
        cfg: of the model; its MODEL.WEIGHTS are the outcome.
        numbers: accuracy and costs.
        facts: what else the record says.
    """

    cfg: CfgNode
    numbers: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


def train_dense(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Train the study's dense model, phase by phase."""
    facts = []
    for i, phase in enumerate(row.study.training, start=1):
        cfg, fact = train(cfg, phase, folder / f"phase{i}")
        facts.append(fact)
    return _trained(cfg, facts)


def finetune(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Train the parent's model on: a compact one, or the dense one as much longer."""
    distillation = row.settings.get("distillation", 0.0)
    if distillation:
        cfg = cfg.clone()
        cfg.defrost()
        keys = cfg.MODEL.DISTILLATION
        dense = folder.parent.parent / next(row.lineage()).folder
        keys.TEACHER = load_config(str(dense / "model.yaml")).MODEL.WEIGHTS
        keys.FEATURES = keys.PROPOSALS = keys.BOXES = distillation
    cfg, facts = train(cfg, row.study.finetuning, folder / "phase1")
    return _trained(cfg, [facts])


def train_from_scratch(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Train the parent's compact architecture from random weights, as the dense model was."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    facts = []
    for i, phase in enumerate(row.study.training, start=1):
        # Nothing is pretrained in compact layers, so everything learns.
        phase = replace(phase, opts={**phase.opts, "MODEL.BACKBONE.FREEZE_AT": 0})
        cfg, fact = train(cfg, phase, folder / f"phase{i}")
        facts.append(fact)
    return _trained(cfg, facts)


def compress(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Compress the parent's model on training images that the seed chooses; nothing is trained."""
    output, errors = folder / "compact", folder / "errors.json"
    if not output.exists():  # an attempt may have ended in the evaluation
        images = load_images(cfg, None, row.study.calibration, seed=row.seed)
        model = load_model(cfg)
        result = compress_(model, task=DetectionTask(images, cfg), **row.settings)
        result.milliseconds = None  # the bench runs beside other work: a time would mislead
        for layer in result.layers.values():
            layer.milliseconds = None
        of_layers = {name: layer.error for name, layer in result.layers.items()}
        errors.write_text(json.dumps(of_layers), encoding="utf-8")
        result.save(output)
    compact = load_config(str(output / "config.yaml"))
    numbers = {**accuracy(compact, load_model(compact)), **costs(compact)}
    return Outcome(compact, numbers, {"errors": json.loads(errors.read_text(encoding="utf-8"))})


def prune(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Remove channels of the parent's model by torch-pruning, and fit what is left."""
    from prune import prune_into  # needs a library that no other row does

    output = folder / "compact"
    if not output.exists():
        arguments = argparse.Namespace(
            config_file=str(folder.parent.parent / row.parent.folder / "model.yaml"),
            weights=None,
            opts=[],
            images=None,
            num_images=row.study.calibration,
            output=str(output),
            **row.settings,
        )
        with new_folder(arguments.output) as temporary:
            prune_into(temporary, arguments)
    pruned = load_config(str(output / "config.yaml"))
    return Outcome(pruned, {**accuracy(pruned, load_model(pruned)), **costs(pruned)})


def quantize(row: Row, cfg: CfgNode, folder: Path) -> Outcome:
    """Export the parent's model in eight bits, calibrated on training images, and run that."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
    for record in records[:: max(1, len(records) // INT8_IMAGES)][:INT8_IMAGES]:
        link = images / os.path.basename(record["file_name"])
        if not link.exists():
            link.symlink_to(os.path.abspath(record["file_name"]))
    file = str(folder / "int8.xml")
    model = load_model(cfg)
    export(model, file, precision="int8", images=str(images))
    detector = Detector(file, "openvino")
    _, found, _ = evaluate_export(Predictor.of(model), detector, cfg.DATASETS.TEST[0])
    numbers = {key: round(found[name], 3) for key, name in ACCURACIES.items() if name in found}
    size = sum(os.path.getsize(f"{folder}/int8.{suffix}") for suffix in ("xml", "bin"))
    return Outcome(cfg, {**numbers, **costs(cfg), "file_bytes": size})


def _trained(cfg: CfgNode, facts: list[dict]) -> Outcome:
    numbers = facts[-1].pop("numbers")
    for fact in facts[:-1]:
        fact.pop("numbers")
    return Outcome(cfg, {**numbers, **costs(cfg)}, {"training": facts})


def costs(cfg: CfgNode) -> dict[str, int]:
    """Parameters, and multiply-adds of an image of the largest size that the config tests."""
    model = load_model(cfg)
    size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    work = count_multiply_adds(model, *size, cfg.MODEL.RPN.POST_NMS_TOPK_TEST)
    return {"params": count_parameters(model), "multiply_adds": sum(work.values())}


STEPS: dict[str, Callable[[Row, CfgNode, Path], Outcome]] = {
    "train": train_dense,
    "finetune": finetune,
    "scratch": train_from_scratch,
    "compress": compress,
    "prune": prune,
    "quantize": quantize,
}
