#!/usr/bin/env python
"""Classification and localization on a VOC-style folder: dense, calibrated and fine-tuned.

    DETECTRON2_DATASETS=... python tools/research/classification.py --weights vgg16.pth \
        --output output/classification

The class of an image is that of its largest box. A VGG-16 with global average pooling begins with
--weights (what sparsedet convert writes); it is compressed to --factors fewer parameters and
multiply-adds, calibrated alone, and both it and the compact ones are trained on for as long, from
each of --seeds. Each step is a command; one whose result is there is passed over, so what was
stopped goes on. records.json gets a line for each model, and the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from sparsedet.files import replacing
from sparsedet.reports.tables import pipe_table

CONFIG = Path(__file__).parents[2] / "configs" / "VOC-Classification" / "vgg16_gap_112.yaml"
# A third of the dense rate, as for detectors, and one epoch of 540 images; from conv4_1 on.
FINETUNING = [
    "SOLVER.BASE_LR", "0.0007", "SOLVER.MAX_ITER", "34", "SOLVER.STEPS", "(25,)",
    "SOLVER.WARMUP_ITERS", "3", "SOLVER.CHECKPOINT_PERIOD", "10", "DATASETS.TEST", "()",
    "MODEL.CLASSIFIER.FROZEN", "['network.features.[0-9]', 'network.features.1[0-6]']",
]  # fmt: skip
METRICS = {
    "class top1": "top-1",
    "class top5": "top-5",
    "top1": "localization top-1",
    "top5": "localization top-5",
    "known": "localization, class known",
}


def sparsedet(*arguments: object) -> None:
    """Run one command; its own line says what is wrong."""
    code = "from sparsedet.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"error: {' '.join(map(str, arguments))} failed")


class Experiment:
    def __init__(self, weights: str, output: Path):
        self.weights, self.output = weights, output
        self.file = output / "records.json"
        self.records = json.loads(self.file.read_text()) if self.file.exists() else {}

    def dense(self) -> Path:
        folder = self.output / "dense"
        if not (folder / "model_final.pth").exists():
            resume = ["--resume"] if (folder / "last_checkpoint").exists() else []
            begin = [] if resume else ["--weights", self.weights]
            arguments = ["--config-file", CONFIG, *begin, *resume, "OUTPUT_DIR", folder]
            sparsedet("classify", *arguments, "DATASETS.TEST", "()")
        return folder / "model_final.pth"

    def compact(self, factor: float) -> Path:
        folder = self.output / f"{factor:g}x"
        if not folder.exists():
            sparsedet(
                "compress", "--config-file", CONFIG, "--weights", self.dense(),
                "--target-params", factor, "--target-flops", factor, "--output", folder,
            )  # fmt: skip
        return folder

    def finetune(self, config: Path, weights: Path, folder: Path, seed: int) -> Path:
        if not (folder / "model_final.pth").exists():
            resume = ["--resume"] if (folder / "last_checkpoint").exists() else []
            keys = ["MODEL.WEIGHTS", weights, "OUTPUT_DIR", folder, "SEED", seed, *FINETUNING]
            sparsedet("classify", "--config-file", config, *resume, *keys)
        return folder / "model_final.pth"

    def measure(self, name: str, config: Path, weights: Path) -> None:
        if name in self.records:
            return
        found = self.output / "localization" / name.replace(" ", "-")
        found.parent.mkdir(exist_ok=True)
        if not found.exists():
            arguments = ["--config-file", config, "--weights", weights, "--names", name]
            sparsedet("localize", *arguments, "--output", found)
        errors = json.loads((found / "localization.json").read_text())["errors"][name]
        self.records[name] = errors
        with replacing(str(self.file)) as temporary:
            Path(temporary).write_text(json.dumps(self.records, indent=1))

    def run(self, factors: list[float], seeds: list[int]) -> None:
        self.measure("dense", CONFIG, self.dense())
        models = {"dense": (CONFIG, self.dense())}
        for factor in factors:
            folder = self.compact(factor)
            models[folder.name] = (folder / "config.yaml", folder / "model.pth")
            self.measure(f"{folder.name} calibrated", *models[folder.name])
        for seed in seeds:
            for name, (config, weights) in models.items():
                folder = self.output / f"{name}-seed{seed}"
                trained = self.finetune(config, weights, folder, seed)
                self.measure(f"{name} seed {seed}", config, trained)

    def table(self) -> str:
        """Errors in percent: mean and standard deviation over the seeds that are there."""
        groups: dict[str, list[dict]] = {}
        for name, record in self.records.items():
            model, _, seed = name.partition(" seed ")
            groups.setdefault(f"{model}, fine-tuned" if seed else model, []).append(record)
        rows = [
            [name, len(found), f"{found[0]['parameters'] / 1e6:.2f} M"]
            + [_spread([record[metric] for record in found]) for metric in METRICS]
            for name, found in groups.items()
        ]
        return pipe_table(["error, percent", "runs", "parameters", *METRICS.values()], rows)


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--factors", nargs="+", type=float, default=[3, 2, 4], metavar="N")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(args.weights, args.output)
    experiment.run(args.factors, args.seeds)
    print(experiment.table())


if __name__ == "__main__":
    main()
