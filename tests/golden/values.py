"""What the program computes for small fixed seeds, in a form that can be written down.

python tests/golden/values.py      writes golden.json anew: only where a change is meant
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from detectron2.modeling import build_model

from sparsedet.benchmark.counting import count_call, count_multiply_adds
from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.compress import plan_for_targets, plan_to_entries, write_plan
from sparsedet.compress.calibrate import calibrate_
from sparsedet.compress.profile import profile_layers
from sparsedet.compress.survey import count_parameters
from sparsedet.detection.config import compact_config, load_config
from sparsedet.detection.task import DetectionTask
from sparsedet.exporting.exporter import export_graph
from sparsedet.modeling import ImageClassifier
from sparsedet.runtime.detector import Detector

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
CLASSES = ["cup", "plate", "spoon"]
TARGETS = {"params": 4, "flops": 3}


def write_pictures(folder: Path, count: int = 6) -> None:
    """Smooth colours and some rectangles, as PNG."""
    from PIL import Image

    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.array(small.resize((128, 96), Image.Resampling.BICUBIC))
        for _ in range(4):
            y, x = rng.integers(0, 64, 2)
            pixels[y : y + 24, x : x + 30] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def dense_config_file(folder: Path) -> Path:
    dataset = {"format": "voc", "root": "nowhere", "split": "test", "classes": CLASSES}
    config = {
        "_BASE_": str(ROOT / "configs" / "Base-RCNN-VGG-16.yaml"),
        "MODEL": {
            "DEVICE": "cpu",
            "VGG": {"DEPTH": 11, "WIDTH_MULTIPLIER": 0.125},
            "ROI_HEADS": {"NUM_CLASSES": len(CLASSES)},
            "ROI_BOX_HEAD": {"FC_DIM": 32},
            "RPN": {"POST_NMS_TOPK_TEST": 30},
        },
        "INPUT": {"MIN_SIZE_TEST": 96, "MAX_SIZE_TEST": 160},
        "DATASETS": {"TEST": ["golden_test"], "REGISTER": {"golden_test": dataset}},
    }
    path = folder / "dense.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def dense_detector(cfg) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.1, 0.1)
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=20.0)
    return model


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of all numbers; the same only on processors that add in the same order."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode() + tensors[name].detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def sums(tensors: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Of each tensor the sum of the sizes of its numbers, and of a fixed random projection."""
    return {
        name: [
            tensor.double().abs().sum().item(),
            (tensor.double().flatten() * _signs(tensor.numel())).sum().item(),
        ]
        for name, tensor in tensors.items()
    }


def _signs(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, (count,), generator=generator).double() * 2 - 1


def processor() -> str:
    """Tells machines apart whose sums round differently."""
    torch.manual_seed(3)
    a, b = torch.randn(2, 300, 300)
    conv = torch.nn.functional.conv2d(torch.randn(1, 7, 40, 40), torch.randn(5, 7, 3, 3))
    inverse = torch.linalg.eigh((a @ a.T).double()).eigenvalues
    tensors = {"mm": a @ b, "conv": conv, "eigh": inverse}
    return f"{torch.__version__} {torch.get_num_threads()} {digest(tensors)}"


def compression_values(folder: Path) -> dict:
    """Plan, calibrated weights, report, checkpoint and exported file of one small detector."""
    pictures = folder / "pictures"
    pictures.mkdir()
    write_pictures(pictures)
    cfg = load_config(str(dense_config_file(folder)))
    model = dense_detector(cfg)
    task = DetectionTask.from_images(cfg, str(pictures), 6)
    sensitivities = task.sensitivities(model)
    profile = profile_layers(
        model, task.on(task.batches[::3]), exclude=task.answers(model), sensitivities=sensitivities
    )
    plan = plan_for_targets(profile, TARGETS)
    entries = plan_to_entries(plan, model)
    report = calibrate_(model, plan, task, sensitivities)
    state = model.state_dict()
    SparseDetCheckpointer(model, str(folder)).save("model")
    checkpoint = torch.load(folder / "model.pth", weights_only=True)
    (folder / "config.yaml").write_text(compact_config(cfg, entries, str(folder)).dump())
    write_plan(entries, folder / "plan.yaml")
    onnx = str(folder / "model.onnx")
    export_graph(model, onnx, class_names=CLASSES, min_size=96, max_size=160)
    return {
        "plan": entries,
        "weights": sums(state),
        "digest": digest(state),
        "report": {
            "parameters": list(report.parameters),
            "multiply_adds": list(report.multiply_adds),
            "layers": {
                name: {
                    "weights": list(layer.weights),
                    "outputs": layer.outputs,
                    "samples": layer.samples,
                    "error": layer.error,
                    "error_alone": layer.error_alone,
                    "note": layer.note,
                }
                for name, layer in report.layers.items()
            },
        },
        "checkpoint": {
            "keys": sorted(checkpoint),
            "model": {name: list(tensor.shape) for name, tensor in checkpoint["model"].items()},
            "preprocessing": checkpoint["preprocessing"],
        },
        "exported": exported_values(onnx, pictures),
    }


def exported_values(path: str, pictures: Path) -> list[dict]:
    """What an exported file finds in two pictures."""
    from PIL import Image

    detector = Detector(path)
    found = []
    for number in (0, 4):
        answer = detector(np.array(Image.open(pictures / f"{number}.png"))[:, :, ::-1])
        found.append(
            {
                "boxes": answer.boxes[:20].tolist(),
                "scores": answer.scores[:20].tolist(),
                "names": answer.names[:20],
                "count": len(answer),
            }
        )
    return found


def config_values() -> dict[str, dict]:
    """Parameters and multiply-adds, stage by stage, of the model of every config."""
    counts = {}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        cfg = load_config(str(path), ["MODEL.DEVICE", "cpu"])
        model = build_model(cfg)
        counts[path.relative_to(ROOT).as_posix()] = {
            "parameters": count_parameters(model),
            "multiply_adds": multiply_adds(model),
        }
    return counts


def multiply_adds(model) -> dict[str, int]:
    if not isinstance(model, ImageClassifier):
        return count_multiply_adds(model, 160, 224, 20)
    with torch.no_grad():
        return {"network": count_call(model.eval().network, torch.zeros(1, 3, 160, 224))[0]}


def all_values(folder: Path) -> dict:
    return {
        "processor": processor(),
        "compression": compression_values(folder),
        "configs": config_values(),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        values = all_values(Path(temporary))
        (FOLDER / "golden.json").write_text(json.dumps(values, indent=1) + "\n")
