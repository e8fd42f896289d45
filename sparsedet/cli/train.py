"""Train or evaluate a detector, as detectron2's own train_net does.

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
from ..training.launch import launch
from ..training.setup import setup
from ..training.trainer import Trainer


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    with setup(args) as cfg:
        if args.eval_only:
            evaluate(cfg, args.resume)
            return
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def evaluate(cfg: CfgNode, resume: bool = False) -> dict:
    """Print the accuracy of MODEL.WEIGHTS, or of the last checkpoint in OUTPUT_DIR; all of it."""
    model = Trainer.build_model(cfg)
    checkpointer = SparseDetCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    return Trainer.test(cfg, model)


def main() -> None:
    """The command."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(dist_url="auto")  # two trainings run side by side
    args = parser.parse_args()
    if not args.config_file:
        parser.error("--config-file is required")
    if min(args.num_gpus, args.num_machines) < 1:
        parser.error("--num-gpus and --num-machines must be at least 1")
    device = load_config(args.config_file, args.opts).MODEL.DEVICE
    launch(
        train,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        device=device,
    )
