"""tools/install/install_detectron2.py without a network, and the detectron2 that is installed."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import hooks, launch
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

SCRIPT = Path(__file__).parents[2] / "tools" / "install" / "install_detectron2.py"


def load_script():
    sys.path.insert(0, str(SCRIPT.parent))  # as when it runs
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


installer = load_script()
ours = (installer.installed_version(installer.DISTRIBUTION) or "").find("+sparsedet") > 0
only_ours = pytest.mark.skipif(not ours, reason="detectron2 was not installed by the script")


def run_script(first: Path | None = None) -> subprocess.CompletedProcess:
    """Run it without an index, and with the modules of the folder ``first`` before all others."""
    path = filter(None, (first and str(first), os.environ.get("PYTHONPATH")))
    env = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run([sys.executable, SCRIPT], env=env, capture_output=True, text=True)


def assert_one_error_line(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


# --- mends and the wheel ---


def test_mend_replaces_every_occurrence_and_adds_files():
    files = {"a.py": b"x = np.int\ny = np.int\n"}
    installer.mend(files, [("why", [("a.py", "np.int", "int"), ("b.py", None, "new")])])
    assert files == {"a.py": b"x = int\ny = int\n", "b.py": b"new"}


@pytest.mark.parametrize("files", [{"a.py": b"x = 1\n"}, {}], ids=["other text", "no file"])
def test_mend_names_the_file_and_the_text_that_is_missing(files):
    with pytest.raises(installer.InstallError) as error:
        installer.mend(files, [("why", [("a.py", "two\nlines", "")])])
    assert "a.py" in str(error.value) and r"two\nlines" in str(error.value)
    assert "\n" not in str(error.value)


def test_every_mend_has_a_reason_and_goes_to_an_installed_package():
    for reason, edits in installer.MENDS:
        assert reason and edits
        for name, old, new in edits:
            assert old != new
            assert any(name.startswith(f"{package}/") for package in installer.PACKAGES.values())


def test_projects_become_subpackages():
    files = {
        "detectron2/engine/launch.py": b"1",
        "projects/PointRend/point_rend/config.py": b"2",
        "tools/train_net.py": b"3",
    }
    assert installer.select_packages(files) == {
        "detectron2/engine/launch.py": b"1",
        "detectron2/projects/point_rend/config.py": b"2",
    }


def test_pip_installs_the_wheel(tmp_path):
    files = {"detectron2/__init__.py": b"answer = 42\n"}
    wheel = installer.write_wheel(files, b"licence", ["numpy"], tmp_path)
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    assert (target / "detectron2" / "__init__.py").read_text() == "answer = 42\n"
    (distribution,) = metadata.distributions(path=[str(target)])
    assert distribution.version == installer.VERSION
    assert distribution.requires == ["numpy"]
    names = zipfile.ZipFile(wheel).namelist()
    assert {str(file) for file in distribution.files} >= set(names)


# --- what goes wrong ---


def test_wrong_hash_is_refused_before_anything_is_written(tmp_path):
    archive = tmp_path / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        content = b"raise SystemExit('tampered')\n"
        member = tarfile.TarInfo("pb1-detectron2-0.6/detectron2/__init__.py")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    before = installer.installed_version(installer.DISTRIBUTION)
    with pytest.raises(installer.InstallError, match=f"{archive.name} has sha256") as error:
        installer.install(archive, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [archive]
    assert installer.installed_version(installer.DISTRIBUTION) == before


def test_without_the_package_index_one_line_says_so(tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(installer.InstallError, match="could not download pb1-detectron2") as error:
        installer.fetch(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_torch_is_one_line(tmp_path):
    for package in ("torch", "detectron2"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('gone for the test')\n")
    result = run_script(tmp_path)
    assert_one_error_line(result, "torch", "gone for the test", "pip install torch torchvision")


def test_broken_detectron2_is_named_and_refused(tmp_path):
    if installer.is_outdated():
        pytest.skip("the script would replace its own older wheel")
    (tmp_path / "detectron2.py").write_text("raise ImportError('broken for the test')\n")
    result = run_script(tmp_path)
    assert_one_error_line(result, "does not work", "broken for the test", "uninstall")


def test_a_detectron2_that_lacks_pkg_resources_is_told_what_to_install(tmp_path):
    if installer.is_outdated():
        pytest.skip("the script would replace its own older wheel")
    (tmp_path / "detectron2.py").write_text("import pkg_resources\n")
    (tmp_path / "pkg_resources.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pkg_resources'\")\n"
    )
    result = run_script(tmp_path)
    assert_one_error_line(result, "pkg_resources", 'pip install "setuptools<82" "iopath<0.1.10"')


# --- the detectron2 that is installed ---


def test_the_probe_imports_whatever_the_package_does():
    used = set()
    for path in (SCRIPT.parents[2] / "sparsedet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module)
            elif isinstance(node, ast.Import):
                used.update(alias.name for alias in node.names)
    used = {name for name in used if name.partition(".")[0] == "detectron2"}
    code = f"{installer.PROBE}\nprint(*({used!r} - set(sys.modules)))"
    result = installer.run_code(code)
    assert result.returncode == 0, result.stderr
    assert "detectron2.engine" in used and result.stdout.split() == [detectron2.__version__]


def test_working_detectron2_is_left_alone():
    if installer.is_outdated():
        pytest.skip("the script would replace its own older wheel")
    result = run_script()
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"detectron2 {detectron2.__version__} works\n"


def test_coco_evaluation_needs_no_extension(tmp_path):
    box = [10.0, 20.0, 50.0, 60.0]
    image = {"id": 7, "file_name": "7.png", "height": 100, "width": 120}
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "bbox": box, "area": 3000, "iscrowd": 0}
    coco = {
        "info": {},
        "images": [image],
        "annotations": [annotation],
        "categories": [{"id": 3, "name": "thing"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    register_coco_instances("install_test", {}, str(tmp_path / "coco.json"), str(tmp_path))
    try:
        DatasetCatalog.get("install_test")
        evaluator = COCOEvaluator("install_test", output_dir=str(tmp_path))
        evaluator.reset()
        x, y, w, h = box
        found = Instances((100, 120))
        found.pred_boxes = Boxes(torch.tensor([[x, y, x + w, y + h]]))
        found.scores = torch.tensor([0.9])
        found.pred_classes = torch.tensor([0])
        evaluator.process([{"image_id": 7}], [{"instances": found}])
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100.0)
    finally:
        DatasetCatalog.remove("install_test")
        MetadataCatalog.remove("install_test")


def gather_ranks(folder: str) -> None:
    ranks = comm.all_gather(comm.get_rank())
    Path(folder, str(comm.get_rank())).write_text(f"{torch.distributed.get_backend()} {ranks}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="processes take a GPU each")
def test_launch_runs_processes_on_the_cpu(tmp_path):
    launch(gather_ranks, 2, dist_url="auto", args=(str(tmp_path),))
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    assert {path.read_text() for path in tmp_path.iterdir()} == {"gloo [0, 1]"}


@only_ours
def test_what_needs_the_extension_says_so_when_used():
    from detectron2.layers import DeformConv, ROIAlignRotated, nms_rotated
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    uses = {
        "roi_align_rotated": lambda: ROIAlignRotated(2, 1.0, 0)(
            torch.rand(1, 3, 8, 8), torch.rand(1, 6)
        ),
        "nms_rotated": lambda: nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5),
        "box_iou_rotated": lambda: pairwise_iou_rotated(torch.rand(2, 5), torch.rand(2, 5)),
    }
    for operator, use in uses.items():
        with pytest.raises(ImportError, match=f"{operator}.* needs .*compiled extension") as error:
            use()
        assert "\n" not in str(error.value)
    # torchvision computes this one on the CPU.
    output = DeformConv(4, 6, 3, padding=1)(torch.rand(1, 4, 8, 8), torch.zeros(1, 18, 8, 8))
    assert output.shape == (1, 6, 8, 8)


@only_ours
def test_no_removed_name_is_left():
    removed = re.compile(r"\bnp\.(bool|int|float|str|object)\b|Image\.LINEAR|pkg_resources")
    root = Path(detectron2.__file__).parent
    for path in root.rglob("*.py"):
        match = removed.search(path.read_text())
        assert not match, f"{path.relative_to(root)}: {match.group()}"


# --- mends that only use shows ---

only_current = pytest.mark.skipif(
    not ours or installer.is_outdated(), reason="detectron2 was not installed by this script"
)


@only_current
def test_another_image_takes_the_place_of_one_that_gives_nothing():
    dataset = MapDataset(list(range(6)), lambda value: None if value < 5 else value)
    assert dataset[0] == 5


@only_current
def test_a_scheduler_of_torch_goes_into_checkpoints():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    state = hooks.LRScheduler(optimizer, scheduler).state_dict()
    assert state["last_epoch"] == 3
    again = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    hooks.LRScheduler(optimizer, again).load_state_dict(state)
    assert again.last_epoch == 3


@only_current
def test_heads_of_one_stage_detectors_take_group_norm():
    shapes = [ShapeSpec(channels=64, stride=8)]
    head = FCOSHead(input_shape=shapes, num_classes=2, conv_dims=[64], prior_prob=0.01, norm="GN")
    logits, boxes, centreness = head([torch.rand(1, 64, 8, 8)])
    assert [tuple(x[0].shape) for x in (logits, boxes, centreness)] == [
        (1, 2, 8, 8), (1, 4, 8, 8), (1, 1, 8, 8)
    ]  # fmt: skip
    assert any(isinstance(module, torch.nn.GroupNorm) for module in head.modules())
