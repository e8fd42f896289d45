"""Train a small detector on generated pictures, compress it, fine-tune it, and compare.

    python tools/quickstart.py --output output/demo

Needs no data and no GPU. What is finished is not done again. Writes, under --output:

    results.json      parameters, multiply-adds, ms per image, COCO AP, AP50 and VOC mAP of each
    dense/            config.yaml and model_final.pth, as sparsedet train leaves them
    sparse/           the dense model compressed, as sparsedet compress leaves it, with a report;
                      sparse/finetune/ is that model fine-tuned, the one that is compared
    scratch/          a sparse model that was trained like the dense one, without ever being dense
    detections/       test pictures: the truth beside what the sparse model finds
    curves.png        loss and AP50 while training
    tradeoff.png      accuracy against speed against size
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from PIL import Image
from tqdm import tqdm

from ..api import compress_
from ..benchmark.counting import count_multiply_adds
from ..compress.survey import count_parameters
from ..data import generate_shapes
from ..detection.config import load_config
from ..detection.load import load_model
from ..detection.predictor import Predictor
from ..files import locked, replacing
from ..images import read_image
from ..latency import compare_latency
from ..model_zoo import get_config_file
from ..reports.pictures import draw_detections
from ..reports.tables import markdown_table
from ..reports.tradeoff import plot_tradeoff
from ..reports.training import plot_training_curves
from ..timing import environment
from ..training.trainer import Trainer

TARGETS = {"params": 12.4}
CALIBRATION_IMAGES = 60
PICTURES = 8
TIMED_IMAGES = 10


class ProgressBar(HookBase):
    def __init__(self, name: str):
        self.name = name

    def before_train(self):
        trainer = self.trainer
        self.bar = tqdm(
            total=trainer.max_iter, initial=trainer.start_iter, desc=f"training {self.name}"
        )

    def after_step(self):
        self.bar.update()

    def after_train(self):
        self.bar.close()


def config(name: str, folder: Path) -> CfgNode:
    return load_config(get_config_file(f"Shapes-Detection/{name}"), ["OUTPUT_DIR", str(folder)])


def train(cfg: CfgNode, name: str) -> CfgNode:
    """Train, or go on from the last checkpoint of a run with the same config.

    Returns:
        the config of the trained model
    """
    folder = Path(cfg.OUTPUT_DIR)
    config_file = folder / "config.yaml"
    resume = config_file.is_file() and config_file.read_text() == cfg.dump()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with replacing(str(config_file)) as temporary:
            Path(temporary).write_text(cfg.dump())
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if trainer.start_iter < trainer.max_iter:
        trainer.register_hooks([ProgressBar(name)])
        trainer.train()
    trained = cfg.clone()
    trained.MODEL.WEIGHTS = str(folder / "model_final.pth")
    return trained


def compress_into(output: Path, cfg: CfgNode) -> CfgNode:
    """Compress the model of ``cfg``, unless that was done since it was trained.

    Returns:
        the config that fine-tunes the result
    """
    config_file = output / "config.yaml"
    weights = Path(cfg.MODEL.WEIGHTS)
    if not config_file.is_file() or config_file.stat().st_mtime < weights.stat().st_mtime:
        shutil.rmtree(output, ignore_errors=True)
        result = compress_(
            load_model(cfg),
            num_images=CALIBRATION_IMAGES,
            **TARGETS,
            no_slower=True,
            progress=True,
        )
        result.save(output)
    return load_config(str(config_file))


def evaluate(cfg: CfgNode, model: torch.nn.Module) -> dict[str, float]:
    results = Trainer.test(cfg, model)
    return {
        "AP": results["bbox"]["AP"],
        "AP50": results["bbox"]["AP50"],
        "voc_mAP": results["voc"]["mAP"],
    }


def costs(cfg: CfgNode, model: torch.nn.Module) -> dict[str, float]:
    height, width = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    multiply_adds = count_multiply_adds(model, height, width, cfg.MODEL.RPN.POST_NMS_TOPK_TEST)
    return {"params": count_parameters(model), "multiply_adds": sum(multiply_adds.values())}


def draw(cfg: CfgNode, predictor: Predictor, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    dataset = cfg.DATASETS.TEST[0]
    names = MetadataCatalog.get(dataset).thing_classes
    for record in DatasetCatalog.get(dataset)[:PICTURES]:
        image = read_image(record["file_name"])
        instances = predictor(image)["instances"].to("cpu")
        instances = instances[instances.scores >= 0.5]
        picture = draw_detections(image, instances, record["annotations"], names)
        Image.fromarray(picture[:, :, ::-1]).save(folder / f"{record['image_id']}.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/demo", metavar="DIR")
    output = Path(parser.parse_args().output)
    with locked(str(output)):
        demo(output)


def demo(output: Path) -> None:
    generate_shapes(os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), "shapes"))
    # The log takes what detectron2 logs and what pycocotools prints; the terminal, the progress.
    logging.basicConfig(filename=output / "log.txt", level=logging.INFO)
    with open(output / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        dense = train(config("faster_rcnn_VGG_11.yaml", output / "dense"), "dense")
        scratch = config("faster_rcnn_VGG_11_sparse.yaml", output / "scratch")
        compressed = compress_into(output / "sparse", dense)
        configs = {
            "dense": dense,
            "sparse": train(compressed, "sparse"),
            "sparse, not fine-tuned": compressed,
            "sparse from scratch": train(scratch, "sparse from scratch"),
        }
        predictors = {name: Predictor(cfg) for name, cfg in configs.items()}
        results = {
            name: {**costs(cfg, predictors[name].model), **evaluate(cfg, predictors[name].model)}
            for name, cfg in configs.items()
        }

    draw(configs["sparse"], predictors["sparse"], output / "detections")
    records = DatasetCatalog.get(configs["dense"].DATASETS.TEST[0])[:TIMED_IMAGES]
    images = [read_image(record["file_name"]) for record in records]
    for name, latency in compare_latency(predictors, images, progress=True).items():
        results[name]["ms"] = latency.median
    with replacing(str(output / "results.json")) as temporary:
        Path(temporary).write_text(json.dumps(results, indent=2) + "\n")
    trained = [name for name in configs if name != "sparse, not fine-tuned"]
    plot_training_curves(
        {name: os.path.join(configs[name].OUTPUT_DIR, "metrics.json") for name in trained},
        str(output / "curves.png"),
    )
    plot_tradeoff(results, str(output / "tradeoff.png"))
    print(markdown_table(results))
    print("; ".join(f"{key} {value}" for key, value in environment().items()))
    print(f"pictures, plots and results.json are in {output}")
