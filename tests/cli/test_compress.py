"""tools/compress.py: a folder that other tools take, whole or not at all."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image

from sparsedet.checkpoint import SparseDetCheckpointer
from sparsedet.data import generate_shapes
from sparsedet.detection.config import load_config

ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 16, STEPS: [8, 12], WARMUP_ITERS: 2, BASE_LR: 0.003}}
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""
FILES = {
    "config.yaml", "last_checkpoint", "layers.png", "model.pth", "plan.yaml", "report.html",
    "report.md",
}  # fmt: skip
ONE_LAYER = {"backbone.conv3_1": {"pattern": "rows", "ranks": [8, 4]}}


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    generate_shapes(str(folder / "shapes"), num_train=6, num_test=2, image_size=(128, 96))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder))
        patch.setattr("sparsedet.compress.layer_times.SECONDS", 0.0)
        yield folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The arguments that name a dense model."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "dense.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    model = build_model(load_config(str(folder / "dense.yaml")))
    SparseDetCheckpointer(model, str(folder)).save("dense")
    return ["--config-file", folder / "dense.yaml", "--weights", folder / "dense.pth"]


@pytest.fixture(scope="module")
def compressed(dense, tmp_path_factory):
    """What the tool makes of it, asked for two targets."""
    out = tmp_path_factory.mktemp("compressed") / "out"
    targets = ["--target-params", "4x", "--target-flops", "2x", "--output", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compress.py", *map(str, [*dense, *targets])])
        runpy.run_path(str(ROOT / "tools/compress.py"), run_name="__main__")
    return out


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "one_layer.yaml"
    path.write_text(yaml.safe_dump(ONE_LAYER))
    return ["--plan", path, "--num-images", 1]


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


def _model(folder):
    return build_model(load_config(str(folder / "config.yaml"))).eval()


def _table(folder):
    """Of report.md, the cells of each row by its first."""
    rows = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row[:1] == "|"]
    return {name: values for name, *values in cells}


def _no_folder_is_left(folder):
    return not list(folder.glob("out*"))


def test_the_targets_are_met_and_all_files_are_there(dense, compressed):
    assert {path.name for path in compressed.iterdir()} == FILES
    assert [path.name for path in compressed.parent.iterdir()] == ["out"]
    before = _parameters(build_model(load_config(str(dense[1]))))
    after = _parameters(_model(compressed))
    assert before / after >= 4

    table, plan = _table(compressed), yaml.safe_load((compressed / "plan.yaml").read_text())
    work = [float(text.removesuffix(" M")) for text in table["multiply-adds"][:2]]
    assert work[0] / work[1] >= 1.99
    assert "ms" in table and set(plan) < set(table)
    assert before - after == sum(entry["before"] - entry["after"] for entry in plan.values())
    assert all(0 <= entry["error"] < 1 for entry in plan.values())
    assert not any("cls_score" in name or "bbox_pred" in name for name in plan)


def test_the_config_goes_on_from_there(compressed):
    cfg = load_config(str(compressed / "config.yaml"))
    assert cfg.MODEL.META_ARCHITECTURE == "SparsifiedModel"
    assert cfg.MODEL.WEIGHTS == str(compressed / "model.pth")
    assert cfg.OUTPUT_DIR == str(compressed / "finetune")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (4, (2, 3))
    assert cfg.SOLVER.BASE_LR == pytest.approx(0.001)


def test_a_predictor_takes_it(compressed, datasets):
    cfg = load_config(str(compressed / "config.yaml"), ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    image = np.array(Image.open(next((datasets / "shapes/JPEGImages").iterdir())))[:, :, ::-1]
    found = DefaultPredictor(cfg)(image)["instances"]
    assert len(found) and found.scores.isfinite().all()
    model = _model(compressed)
    SparseDetCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS)


def test_it_is_evaluated_and_fine_tuned(run_tool, compressed, tmp_path):
    config = ["--config-file", compressed / "config.yaml"]
    out = ["OUTPUT_DIR", tmp_path / "evaluated"]
    assert run_tool("train_net.py", *config, "--eval-only", *out)[0] == 0
    assert (tmp_path / "evaluated/inference/coco_instances_results.json").is_file()
    assert run_tool("train_net.py", *config, "OUTPUT_DIR", tmp_path / "tuned")[0] == 0
    tuned = torch.load(tmp_path / "tuned/model_final.pth", weights_only=True)["model"]
    start = torch.load(compressed / "model.pth", weights_only=True)["model"]
    assert tuned.keys() == start.keys()
    changed = [name for name in start if not torch.equal(tuned[name], start[name])]
    assert any(".sparse." in name for name in changed)


def test_an_edited_plan_is_applied(run_tool, dense, compressed, tmp_path):
    entries = yaml.safe_load((compressed / "plan.yaml").read_text())
    assert "roi_heads.box_head.fc6" in entries
    entries = {"roi_heads.box_head.fc6": {**entries["roi_heads.box_head.fc6"], "rank": 5}}
    entries["backbone.conv4_?"] = {"pattern": "cross", "ranks": [6, 7]}
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(entries))
    edited = ["--plan", tmp_path / "edited.yaml", "--output", tmp_path / "out"]
    status, lines = run_tool("compress.py", *dense, *edited)
    assert status == 0, lines
    model = _model(tmp_path / "out")
    assert model.roi_heads.box_head.fc6.rank == 5
    assert model.backbone.conv4_2.pattern == "cross" and model.backbone.conv4_2.ranks == (6, 7)
    assert isinstance(model.backbone.conv3_1, torch.nn.Conv2d)
    written = yaml.safe_load((tmp_path / "out/plan.yaml").read_text())
    assert set(written) == {"roi_heads.box_head.fc6", "backbone.conv4_1", "backbone.conv4_2"}


def test_nothing_to_do(run_tool, dense, tmp_path):
    nothing = ["--target-latency", "1x", "--include", "backbone.conv2_1", "--num-images", 1]
    status, lines = run_tool("compress.py", *dense, *nothing, "--output", tmp_path / "out")
    assert status == 0, lines
    weights = torch.load(tmp_path / "out/model.pth", weights_only=True)["model"]
    model = _model(tmp_path / "out")
    assert {name: w.shape for name, w in weights.items()} == {
        name: w.shape for name, w in model.state_dict().items()
    }
    assert type(model.backbone.conv2_1).__name__ == "Conv2d"


def test_images_of_all_kinds(run_tool, dense, plan, tmp_path, caplog):
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    for mode in ("RGB", "L", "RGBA"):
        Image.fromarray(pixels).convert(mode).save(photos / f"{mode}.png")
    (photos / "cut.png").write_bytes((photos / "RGB.png").read_bytes()[:1000])
    arguments = [*dense, "--images", photos, *plan[:2], "--output", tmp_path / "out"]
    status, lines = run_tool("compress.py", *arguments)
    assert status == 0, lines
    assert "1 of 4 images cannot be used" in caplog.text and "cut.png" in caplog.text
    # 3 images, at stride 4 of 64 x 72.
    assert _table(tmp_path / "out")["backbone.conv3_1"][6] == str(3 * 16 * 18)


def test_from_the_weights_alone(run_tool, dense, plan, tmp_path):
    arguments = [*dense, *plan, "--weights-alone", "--output", tmp_path / "out"]
    assert run_tool("compress.py", *arguments)[0] == 0
    weights = torch.load(tmp_path / "out/model.pth", weights_only=True)["model"]
    torch.manual_seed(0)
    original = build_model(load_config(str(dense[1]))).backbone.conv3_1.weight.detach()
    built = _model(tmp_path / "out")
    built.load_state_dict(weights)
    rows = original[:, :, [0, 2]].flatten(1), built.backbone.conv3_1.dense_weight()[:, :, [0, 2]]
    singular = torch.linalg.svdvals(rows[0])
    distance = (rows[0] - rows[1].flatten(1)).square().sum()
    torch.testing.assert_close(distance, singular[8:].square().sum(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--target-params", "0.5x"], 2, "0.5x is not a factor of at least 1"),
        (["--target-params", "nan"], 2, "nan is not a factor of at least 1"),
        (["--target-flops", "fast"], 2, "--target-flops: invalid factor value: 'fast'"),
        ([], 2, "give one of targets (such as --target-params 12.4x), --uniform, --plan and --max"),
        (["--target-params", "2x", "--max-drop", 1], 2, "give one of targets"),
        (["--target-params", "2x", "--metric", "AP"], 2, "--metric, --on and --for are for --max"),
        (["--max-drop", -1], 2, "--max-drop must be 0 or more points"),
        (
            ["--max-drop", 1, "--exclude", "a"],
            2,
            "--include, --exclude, --no-slower and --width are",
        ),
        (["--target-params", "2x", "--precision", "int8"], 2, "--precision is for --export"),
        (["--max-drop", 1, "--on", "shapes_tset"], 1, "'shapes_tset' is not registered"),
        (["--max-drop", 1, "--images", "nowhere"], 1, "nowhere: no such file or folder"),
        (["--max-drop", 1, "--metric", "PQ"], 1, "--metric PQ: this evaluation gives bbox/AP, "),
        (["--target-params", "2x", "--plan", "plan.yaml"], 2, "give one of targets"),
        (["--target-params", "2x", "--num-images", 0], 2, "--num-images must be at least 1"),
        (
            ["--target-params", "900x", "--include", "backbone.conv2_1", "--num-images", 1],
            1,
            "out of reach: params 900x (at most 1.",
        ),
        (
            ["--target-params", "2x", "--include", "backbone.conv9*"],
            1,
            "'backbone.conv9*': the model has no such layer",
        ),
        (["--target-params", "2x", "--images", "nowhere"], 1, "nowhere: no such file or folder"),
        (["--target-params", "2x", "--weights", "no.pth"], 1, "no.pth: no such checkpoint"),
        (
            ["--target-params", "2x", "MODEL.ROI_BOX_HEAD.FC_DIM", 16],
            1,
            "of another architecture than the config: it has no roi_heads.box_head.fc6.weight",
        ),
        (["--target-params", "2x", "MODEL.VGG.DEPHT", 11], 1, "did you mean MODEL.VGG.DEPTH?"),
        (["--plan", "no.yaml"], 1, "error: no.yaml: cannot be read"),
        (["--plan", ROOT / "LICENSE"], 1, "LICENSE: "),
    ],
)
def test_bad_arguments_end_in_one_line(run_tool, dense, tmp_path, arguments, status, message):
    end, lines = run_tool("compress.py", *dense, "--output", tmp_path / "out", *arguments)
    errors = [line for line in lines if "error: " in line]
    assert end == status and len(errors) == 1 and message in errors[0], lines
    assert not any("Traceback" in line for line in lines)
    assert _no_folder_is_left(tmp_path)


def test_from_a_checkpoint_to_a_file_in_one_command(run_tool, dense, tmp_path, monkeypatch):
    """A search of two steps (a random model has nothing to lose), training, an exported file."""
    monkeypatch.setattr("sparsedet.max_drop.STEPS", 2)
    out = tmp_path / "out"
    search = ["--max-drop", 1.5, "--num-images", 2, "--finetune", "--export", "onnx"]
    status, lines = run_tool("compress.py", *dense, "--output", out, *search)
    assert status == 0, lines
    assert FILES | {"finetune", "model.onnx"} <= {path.name for path in (out / "best").iterdir()}
    assert (out / "search.md").read_text().count(" yes |") == 2
    before = (out / "search.json").read_text()
    status, lines = run_tool("compress.py", *dense, "--output", out, *search)
    assert status == 0 and (out / "search.json").read_text() == before, lines
    status, lines = run_tool("compress.py", *dense, "--output", out, "--max-drop", 2)
    assert status == 1 and "a search with another max_drop, num_images" in lines[-1], lines


def test_a_search_is_of_one_model_and_of_the_patterns_asked(run_tool, dense, tmp_path, monkeypatch):
    monkeypatch.setattr("sparsedet.max_drop.STEPS", 1)
    model = build_model(load_config(str(dense[1])))
    SparseDetCheckpointer(model, str(tmp_path)).save("dense")
    config = ["--config-file", dense[1], "--weights", tmp_path / "dense.pth"]
    search = ["--max-drop", 100, "--num-images", 2, "--output", tmp_path / "out"]
    status, lines = run_tool("compress.py", *config, *search, "--patterns", "cross")
    assert status == 0, lines
    plan = yaml.safe_load((tmp_path / "out/best/plan.yaml").read_text())
    assert {entry["pattern"] for entry in plan.values() if "pattern" in entry} == {"cross"}
    status, lines = run_tool("compress.py", *config, *search)
    assert status == 1 and "a search with another patterns;" in lines[-1], lines
    with torch.no_grad():
        model.backbone.conv1_1.weight += 0.01
    SparseDetCheckpointer(model, str(tmp_path)).save("dense")
    status, lines = run_tool("compress.py", *config, *search, "--patterns", "cross")
    assert status == 1 and "a search with another model;" in lines[-1], lines


@pytest.mark.parametrize(
    "text, message",
    [
        ("backbone.conv3_3: {pattern: rows, ranks: [4, 4]}", "'backbone.conv3_3': the model has"),
        ("backbone.conv3_1: {pattern: rows, rank: 4}", "'backbone.conv3_1': keys must be"),
        ("backbone.conv3_1: [4, 4]", "'backbone.conv3_1' must be a mapping"),
        ("[backbone.conv3_1]", "not a mapping of keys to values"),
        ("backbone.conv3_1: {", "cannot be read"),
    ],
)
def test_a_plan_with_a_mistake(run_tool, dense, tmp_path, text, message):
    (tmp_path / "plan.yaml").write_text(text)
    arguments = [*dense, "--plan", tmp_path / "plan.yaml", "--output", tmp_path / "out"]
    status, lines = run_tool("compress.py", *arguments)
    assert status == 1 and message in lines[-1] and lines[-1].startswith("error: "), lines
    assert _no_folder_is_left(tmp_path)


def test_what_is_compressed_is_not_compressed_again(run_tool, compressed, plan, tmp_path):
    config = ["--config-file", compressed / "config.yaml", "--output", tmp_path / "out"]
    other = tmp_path / "other.yaml"
    other.write_text("roi_heads.box_predictor.cls_score: {rank: 2}\n")
    for how in (["--target-params", "2x", "--num-images", 1], plan, ["--plan", other]):
        status, lines = run_tool("compress.py", *config, *how)
        assert status == 1 and "compressed already" in lines[-1], lines
        assert _no_folder_is_left(tmp_path)


def test_a_folder_that_is_there_is_left_alone(run_tool, dense, plan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    status, lines = run_tool("compress.py", *dense, *plan, "--output", tmp_path / "out")
    assert status == 1 and lines == [f"error: {tmp_path}/out: exists already; choose a new folder"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    status, lines = run_tool("compress.py", *dense, *plan, "--output", tmp_path / "out/precious/x")
    assert status == 1 and "precious/x: cannot be written: " in lines[-1]


def _full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "target, action, status",
    [
        ("torch.save", _full_disk, 1),
        ("sparsedet.reports.compression.write_report", _full_disk, 1),
        ("torch.save", _interrupt, 130),
        ("sparsedet.compress.fit.ConvolutionFit.solve", _interrupt, 130),
    ],
)
def test_no_half_written_folder(
    run_tool, dense, plan, tmp_path, monkeypatch, target, action, status
):
    monkeypatch.setattr(target, action)
    end, lines = run_tool("compress.py", *dense, *plan, "--output", tmp_path / "out")
    assert end == status, lines
    assert not any("Traceback" in line for line in lines)
    if status == 1:
        assert "cannot be written: No space left on device" in lines[-1]
    assert _no_folder_is_left(tmp_path)
