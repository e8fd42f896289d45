"""Train or evaluate a detector, as detectron2's own tools/train_net.py does.

    python tools/train_net.py --config-file configs/VOC-Detection/faster_rcnn_VGG_16_sparse.yaml
    python tools/train_net.py --config-file output/config.yaml --eval-only \\
        MODEL.WEIGHTS output/model_final.pth

With MODEL.DEVICE cpu, --num-gpus is the number of CPU processes. SEED and SOLVER.AMP.ENABLED are
config keys, given as KEY VALUE at the end.
"""

from detectron2.engine import default_argument_parser

from ..checkpoint import SparseDetCheckpointer
from ..detection.config import load_config
from ..training.launch import launch
from ..training.setup import setup
from ..training.trainer import Trainer


def train(args) -> None:
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        SparseDetCheckpointer(model, cfg.OUTPUT_DIR, strict=True).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        Trainer.test(cfg, model)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def main() -> None:
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args()
    if not args.config_file:
        parser.error("--config-file is required")
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
