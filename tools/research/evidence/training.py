"""Training by a rule, in rounds that end with an evaluation; it may be stopped at any time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from sparsedet.compat import has_onednn
from sparsedet.files import replacing
from sparsedet.training.trainer import Trainer

from .studies import Phase

EVALUATIONS = "evaluations.json"
OF_ROUND = ("iteration", "precision")
"""What an evaluation says beside its numbers."""


def train(cfg: CfgNode, phase: Phase, folder: Path) -> tuple[CfgNode, dict]:
    """Train in ``folder``, or go on there, until the phase's rule ends it.

    A round is a run of the :class:`Trainer` that is resumed, which goes on bit for bit.

    Returns:
        the config of the trained model, and what the record says of the training; ``numbers`` are
        those of its last evaluation.
    """
    rule = phase.rule
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([x for pair in phase.opts.items() for x in pair])
    cfg.OUTPUT_DIR, cfg.TEST.EVAL_PERIOD = str(folder), 0
    # A training takes two thirds of the time, where the processor computes in it. On a GPU
    # detectron2's would be in float16; float32 is soon enough there.
    cfg.SOLVER.AMP.ENABLED = cfg.MODEL.DEVICE == "cpu" and has_onednn(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    precision = "bfloat16" if cfg.SOLVER.AMP.ENABLED else "float32"
    while True:
        evaluations = _read(folder)
        schedule = rule.next(evaluations)
        if schedule is None:
            break
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = schedule
        evaluations.append({**_round(cfg), "precision": precision})
        with replacing(str(folder / EVALUATIONS)) as temporary:
            Path(temporary).write_text(json.dumps(evaluations), encoding="utf-8")
        _remove_all_but_last(folder)
    trained = cfg.clone()
    trained.MODEL.WEIGHTS = str(folder / (folder / "last_checkpoint").read_text().strip())
    # Another machine may have run some rounds in another; at first all were in float32.
    precisions = (x.get("precision", "float32") for x in evaluations)
    facts = {
        "precision": " and ".join(dict.fromkeys(precisions)),
        "iterations": evaluations[-1]["iteration"],
        "rate_fell_at": rule.fall(evaluations) if rule.settle else None,
        "because": rule.reason(evaluations),
        "evaluations": [[x["iteration"], x["AP50"]] for x in evaluations],
        "numbers": {k: v for k, v in evaluations[-1].items() if k not in OF_ROUND},
    }
    return trained, facts


def _read(folder: Path) -> list[dict]:
    file = folder / EVALUATIONS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def _round(cfg: CfgNode) -> dict:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.train()
    return {"iteration": trainer.max_iter, **accuracy(cfg, trainer.model)}


def _remove_all_but_last(folder: Path) -> None:
    """Checkpoints with their momentum are a gigabyte each for VGG-16."""
    last = (folder / "last_checkpoint").read_text().strip()
    for file in folder.glob("model_*.pth"):
        if file.name != last:
            file.unlink()


def accuracy(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """The metrics on DATASETS.TEST, in percent; of a model that finds nothing they are 0."""
    results = Trainer.test(cfg, model)
    numbers = {
        "AP": results["bbox"]["AP"],
        "AP50": results["bbox"]["AP50"],
        "AP75": results["bbox"]["AP75"],
        "voc_mAP": results["voc"]["mAP"],
        "voc_mAP_11pt": results["voc"]["mAP_11pt"],
    }
    if "segm" in results:
        numbers |= {"mask_AP": results["segm"]["AP"], "mask_AP50": results["segm"]["AP50"]}
    numbers = {k: 0.0 if math.isnan(v) else round(float(v), 3) for k, v in numbers.items()}
    classes = {k[3:]: v for k, v in results["voc"].items() if k.startswith("AP-")}
    return {**numbers, "voc_AP_of": {k: round(float(v), 3) for k, v in classes.items()}}
