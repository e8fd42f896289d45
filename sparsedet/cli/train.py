"""Train or evaluate a detector or classifier, as detectron2's own train_net does.

    sparsedet train --config-file configs/VOC-Detection/faster_rcnn_VGG_16_sparse.yaml
    sparsedet train --config-file output/config.yaml --eval-only \\
        MODEL.WEIGHTS output/model_final.pth

With MODEL.DEVICE cpu, --num-gpus is the number of CPU processes. torchrun starts it, too:

    torchrun --nproc_per_node 2 tools/train_net.py --config-file FILE

SEED and SOLVER.AMP.ENABLED are config keys, given as KEY VALUE at the end. With --resume a run goes
on from the last checkpoint in OUTPUT_DIR, as if it had never been stopped.
"""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from ..checkpoint import SparseDetCheckpointer
from ..detection.config import load_config
from ..modeling import is_classifier
from ..training.classifier import ClassifierTrainer
from ..training.launch import launch
from ..training.setup import setup
from ..training.trainer import Trainer


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    with setup(args) as cfg:
        if args.eval_only:
            evaluate(cfg, args.resume)
            return
        trainer = trainer_class(cfg)(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def evaluate(cfg: CfgNode, resume: bool = False) -> dict:
    """Print the accuracy of MODEL.WEIGHTS, or of the last checkpoint in OUTPUT_DIR; all of it."""
    kind = trainer_class(cfg)
    model = kind.build_model(cfg)
    checkpointer = SparseDetCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    return kind.test(cfg, model)


def trainer_class(cfg: CfgNode) -> type[Trainer]:
    """By what the config describes."""
    return ClassifierTrainer if is_classifier(cfg) else Trainer


def start(args: argparse.Namespace) -> None:
    """Train in all processes that the arguments ask for."""
    launch(
        train,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        device=load_config(args.config_file, args.opts).MODEL.DEVICE,
    )


def training_parser(doc: str) -> argparse.ArgumentParser:
    """detectron2's, to go through :func:`parse`; ``doc`` is shown by --help."""
    parser = default_argument_parser(epilog=doc)
    parser.set_defaults(dist_url="auto")  # two trainings run side by side
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and check the numbers."""
    args = parser.parse_args()
    if min(args.num_gpus, args.num_machines) < 1:
        parser.error("--num-gpus and --num-machines must be at least 1")
    return args


def main() -> None:
    """The command."""
    parser = training_parser(__doc__)
    args = parse(parser)
    if not args.config_file:
        parser.error("--config-file is required")
    start(args)
