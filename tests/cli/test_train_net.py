"""tools/train_net.py: trains, resumes, evaluates, runs on several CPU processes, and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparsedet.data import SHAPE_CLASSES, generate_shapes

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11_sparse.yaml
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32, FC_RANKS: [8, 8]}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 2, STEPS: [], WARMUP_ITERS: 0, BASE_LR: 0.001}}
TEST: {{EVAL_PERIOD: 2}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=6, num_test=3, image_size=(128, 96))
    return folder


@pytest.fixture
def config(tmp_path, datasets, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def _weights(path):
    return torch.load(path, weights_only=True)["model"]


def test_train_resume_and_evaluate(run_tool, config, tmp_path):
    out = tmp_path / "out"
    assert run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", out)[0] == 0
    first = _metrics(out)[-1]
    assert first["iteration"] == 2
    assert {"bbox/AP50", "voc/mAP", "voc/mAP_11pt"} <= set(first)
    assert {"model_final.pth", "model_best.pth", "config.yaml"} <= {f.name for f in out.iterdir()}

    resumed = ["--config-file", config, "--resume", "OUTPUT_DIR", out, "SOLVER.MAX_ITER", 4]
    assert run_tool("train_net.py", *resumed)[0] == 0
    assert _metrics(out)[-1]["iteration"] == 4
    assert torch.load(out / "model_final.pth", weights_only=True)["iteration"] == 3

    # The checkpoint's own config.yaml is enough to evaluate it.
    evaluate = ["--config-file", out / "config.yaml", "--eval-only"]
    weights = ("MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", tmp_path / "evaluated")
    assert run_tool("train_net.py", *evaluate, *weights)[0] == 0
    assert (tmp_path / "evaluated" / "inference" / "coco_instances_results.json").is_file()
    assert (tmp_path / "evaluated" / "config.yaml").is_file()

    # An evaluation in the same folder, here of a wrong file, leaves that config as it is.
    before = (out / "config.yaml").read_text()
    assert run_tool("train_net.py", *evaluate, "MODEL.WEIGHTS", out / "metrics.json")[0] == 1
    assert (out / "config.yaml").read_text() == before


def test_the_same_seed_gives_the_same_weights(run_tool, config, tmp_path):
    for name in ("a", "b"):
        run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", tmp_path / name)
    a, b = (_weights(tmp_path / name / "model_final.pth") for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_bfloat16_training_keeps_float32_weights(run_tool, config, tmp_path):
    arguments = ["--config-file", config, "SOLVER.AMP.ENABLED", "True", "OUTPUT_DIR"]
    assert run_tool("train_net.py", *arguments, tmp_path / "amp")[0] == 0
    run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", tmp_path / "plain")
    amp, plain = (_weights(tmp_path / name / "model_final.pth") for name in ("amp", "plain"))
    key = "backbone.conv4_1.fusion.weight"
    assert amp[key].dtype == torch.float32
    assert not torch.equal(amp[key], plain[key])
    torch.testing.assert_close(amp[key], plain[key], rtol=0.1, atol=0.01)


def test_a_picture_too_narrow_for_the_model_is_named(run_tool, config, tmp_path):
    """In training and in evaluation."""
    line = str(tmp_path / "line.png")
    Image.new("RGB", (5000, 1)).save(line)
    truth = {
        "images": [{"id": 1, "file_name": line, "width": 5000, "height": 1}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 1]}],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(SHAPE_CLASSES)],
    }
    (tmp_path / "line.json").write_text(json.dumps(truth))
    lines = f"{{format: coco, json: {tmp_path}/line.json, images: {tmp_path}}}"
    config.write_text(f"{config.read_text()}DATASETS: {{REGISTER: {{lines: {lines}}}}}\n")
    arguments = ["--config-file", config, "OUTPUT_DIR", tmp_path / "out"]
    for split in ("TRAIN", "TEST"):
        status, lines = run_tool("train_net.py", *arguments, f"DATASETS.{split}", "('lines',)")
        assert status == 1
        assert lines[-1].startswith(f"error: {line}: ") and "too narrow for the model" in lines[-1]


def test_two_cpu_processes(config, tmp_path):
    tool = [sys.executable, str(ROOT / "tools/train_net.py"), "--num-gpus", "2"]
    arguments = ["--config-file", str(config), "OUTPUT_DIR", str(tmp_path / "out")]
    arguments += ["TEST.EVAL_PERIOD", "0", "SOLVER.MAX_ITER", "1"]
    ended = subprocess.run(tool + arguments, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    assert "torch.jit.script" not in ended.stderr  # the warning is filtered in workers, too
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "World size: 2" in log
    assert "bbox/AP50" in _metrics(tmp_path / "out")[-1]
    assert (tmp_path / "out" / "model_final.pth").is_file()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["MODEL.VGG.DEPHT", 11], "key: MODEL.VGG.DEPHT; did you mean MODEL.VGG.DEPTH?"),
        (["MODEL.VGG.DEPTH"], "come in pairs"),
        (["MODEL.VGG.DEPTH", "deep"], "MODEL.VGG.DEPTH"),
        (["DATASETS.TRAIN", "('shape_trainval',)"], "'shape_trainval' is not registered"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", 7], "NUM_CLASSES is 7, but dataset shapes_trainval has 6"),
        (["DATASETS.REGISTER.shapes_trainval.root", "nowhere"], "nowhere"),
        (["DATASETS.REGISTER.shapes_trainval.split", "val"], "val.txt"),
        (["MODEL.WEIGHTS", "no.pth"], "no.pth: no such checkpoint"),
        (["SOLVER.IMS_PER_BATCH", 0], "SOLVER.IMS_PER_BATCH is 0; expected 1 or more"),
        (["SOLVER.BASE_LR", 1e10, "SOLVER.MAX_ITER", 20], "training diverged: at iteration"),
        (["SOLVER.LR_SCHEDULER_NAME", "none"], "the schedule of this config cannot be built"),
        (["DATALOADER.SAMPLER_TRAIN", "none"], "DATALOADER.SAMPLER_TRAIN: there is no none"),
        (
            ["DATASETS.TRAIN", "('voc_2007_train',)", "MODEL.ROI_HEADS.NUM_CLASSES", 20]
            + ["DATASETS.TEST", "()"],
            "voc_2007_train: there is no ",
        ),
        (["--eval-only", "DATASETS.TEST", "()"], "DATASETS.TEST is (); expected the name"),
        (["--eval-only"], "MODEL.WEIGHTS is empty"),
        (["--eval-only", "MODEL.WEIGHTS", ROOT / "README.md"], "not a checkpoint"),
    ],
)
def test_bad_arguments_end_in_one_line(run_tool, config, tmp_path, arguments, message):
    opts = ["--config-file", config, *arguments, "OUTPUT_DIR", tmp_path / "out"]
    if len(arguments) == 1 and not arguments[0].startswith("--"):
        opts = opts[:-2]
    status, lines = run_tool("train_net.py", *opts)
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and message in errors[0], lines
    assert not any("Traceback" in line for line in lines)
    if "diverged" in message:
        assert "Exception during training" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize("folder", ["file", "file/below", "", "http://a/b"])
def test_an_output_folder_that_cannot_be_written_is_told_at_once(
    run_tool, config, tmp_path, monkeypatch, folder
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    status, lines = run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", folder)
    assert status == 1 and lines[-1].startswith("error: OUTPUT_DIR ")
    assert Path("file").is_file() and not any("Starting training" in line for line in lines)


def test_nothing_annotated(run_tool, config, tmp_path):
    content = {"images": [{"id": 1, "file_name": "1.png", "height": 9, "width": 9}]}
    content |= {"annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "empty.json").write_text(json.dumps(content))
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    entry = {"format": "coco", "json": str(tmp_path / "empty.json"), "images": str(tmp_path)}
    path = tmp_path / "empty.yaml"
    sets = {"REGISTER": {"nothing_annotated": entry}, "TRAIN": ["nothing_annotated"], "TEST": []}
    path.write_text(json.dumps({"_BASE_": str(config), "DATASETS": sets}))
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", 1, "OUTPUT_DIR", tmp_path / "out"]
    status, lines = run_tool("train_net.py", "--config-file", path, *opts)
    assert status == 1
    assert "no image of nothing_annotated has an annotation to train on" in lines[-1]


def test_a_config_with_a_typo_and_one_that_is_not_there(run_tool, tmp_path):
    typo = tmp_path / "typo.yaml"
    typo.write_text("MODEL: {SPARSE_FUSION: {PATTERNS: rows}}\n")
    status, lines = run_tool("train_net.py", "--config-file", typo)
    assert status == 1 and "did you mean MODEL.SPARSE_FUSION.PATTERN?" in lines[-1]
    typo.write_text("MODEL: [\n")
    status, lines = run_tool("train_net.py", "--config-file", typo)
    assert status == 1 and f"{typo}: cannot be read" in lines[-1]
    status, lines = run_tool("train_net.py", "--config-file", tmp_path / "none.yaml")
    assert status == 1 and lines[-1].endswith("none.yaml: no such config file")


def test_a_checkpoint_of_another_architecture_is_refused(run_tool, config, tmp_path):
    out = tmp_path / "out"
    run_tool("train_net.py", "--config-file", config, "OUTPUT_DIR", out)
    weights = ["MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", tmp_path / "other"]
    other = ["--config-file", config, "--eval-only", "MODEL.SPARSE_FUSION.RATIO", 2.0, *weights]
    status, lines = run_tool("train_net.py", *other)
    assert status == 1 and "of another architecture than the config" in lines[-1]


def test_a_truncated_image_ends_training_in_one_line(run_tool, config, tmp_path, monkeypatch):
    generate_shapes(str(tmp_path / "shapes"), num_train=4, num_test=1, image_size=(128, 96))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for image in sorted((tmp_path / "shapes" / "JPEGImages").iterdir()):
        image.write_bytes(image.read_bytes()[:500])
    workers = ["DATALOADER.NUM_WORKERS", 1, "OUTPUT_DIR", tmp_path / "out"]
    status, lines = run_tool("train_net.py", "--config-file", config, *workers)
    assert status == 1 and lines[-1].startswith("error: ") and ".jpg" in lines[-1]
