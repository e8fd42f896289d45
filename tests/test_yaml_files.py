"""YAML as data: what is read, and what is refused within a second."""

import os
import time

import pytest
import yaml
from detectron2 import model_zoo
from detectron2.config import get_cfg

from sparsedet.compress import read_plan
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.yaml_files import LARGEST, read_with_base, read_yaml

BOMB = "a: [&a0 [x,x,x,x,x,x,x,x,x]" + "".join(
    f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
)


@pytest.mark.parametrize(
    "text, message",
    [
        ("OUTPUT_DIR: !!python/object/apply:os.system ['touch ran']", "python/object/apply:os.sys"),
        ('A: !!python/object/apply:eval [\'__import__("os").system("touch ran")\']', "arithmetic"),
        ("A: !!python/object/apply:eval ['9**9**9**9']", "arithmetic"),
        ("A: !!python/object/apply:eval ['[[x for x in [1]*9] for y in [1]]']", "arithmetic"),
        ("A: !!python/object/apply:eval ['[1, 2] * 999999999']", "arithmetic"),
        ("A: !!python/name:os.system", "python/name:os.system"),
        (BOMB + "]", "unfolds to more than"),
        ("A: &a {B: *a}", "unfolds to more than"),
        ("A: " + "[" * 50_000, "nested too deeply"),
        ("A: '" + "x" * LARGEST + "'", "larger than 128 KiB"),
        ("- a\n- b", "not a mapping"),
        ("", "not a mapping"),
        ("A: [1, 2", "cannot be read"),
        ("? [a]\n: b", "cannot be read"),
        ("A: \x07", "cannot be read"),
        ("_BASE_: http://127.0.0.1:1/x.yaml", "must be a file; download it first"),
        ("_BASE_: detectron2://x.yaml", "must be a file; download it first"),
        ("_BASE_: 7", "must be a file"),
        ("_BASE_: gone.yaml", "_BASE_ gone.yaml: there is no file"),
        ("_BASE_: config.yaml", "leads back to itself"),
    ],
)
def test_one_line_within_a_second_and_nothing_runs(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(InputError, match=f"config.yaml: .*{message}") as caught:
        load_config(tmp_path / "config.yaml")
    assert time.perf_counter() - start < 3  # a second, on a machine that does nothing else
    assert "\n" not in str(caught.value) and str(caught.value).count("config.yaml: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    if "_BASE_" not in text:
        with pytest.raises(InputError):
            read_plan(str(tmp_path / "config.yaml"))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"A: \xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(str(tmp_path / "config.yaml"))


def test_bases_are_merged_as_detectron2_merges_them(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("A: {B: 1, C: {D: 2}}\nE: [1, 2]")
    (tmp_path / "b.yaml").write_text("A: {C: {F: 3}}")
    text = "_BASE_: [../a.yaml, ../b.yaml]\nA: {C: {D: 5}}\nE: !!python/tuple [3]"
    (tmp_path / "sub" / "c.yaml").write_text(text)
    path = str(tmp_path / "sub" / "c.yaml")
    expected = get_cfg().load_yaml_with_base(path, allow_unsafe=True)
    assert read_with_base(path) == expected == {"A": {"B": 1, "C": {"D": 5, "F": 3}}, "E": (3,)}


@pytest.mark.parametrize(
    "name",
    ["COCO-Detection/retinanet_R_50_FPN_1x.yaml", "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"],
)
def test_configs_of_detectron2_are_read_as_detectron2_reads_them(name):
    path = model_zoo.get_config_file(name)
    theirs = get_cfg()
    theirs.merge_from_file(path)
    ours = load_config(path, ["MODEL.DEVICE", theirs.MODEL.DEVICE])
    for key in ("ANCHOR_GENERATOR", "FPN", "RETINANET", "RPN", "ROI_HEADS", "RESNETS"):
        assert ours.MODEL[key] == theirs.MODEL[key]
    assert ours.SOLVER == theirs.SOLVER


def test_every_config_of_detectron2_is_read():
    from pathlib import Path

    folder = Path(model_zoo.get_config_file("Base-RetinaNet.yaml")).parent
    for path in sorted(folder.rglob("*.yaml")):
        expected = get_cfg().load_yaml_with_base(str(path), allow_unsafe=True)
        assert yaml.safe_dump(read_with_base(str(path))) == yaml.safe_dump(expected), path


@pytest.mark.parametrize("name", ["code.py", "code.PY", "./code.py"])
def test_a_python_file_named_by_a_yaml_is_not_run(tmp_path, name):
    (tmp_path / os.path.basename(name)).write_text(
        f"open({str(tmp_path / 'intruder')!r}, 'w').close()\nmodel = {{}}\n"
    )
    (tmp_path / "config.yaml").write_text(f"_BASE_: {name}\nSEED: 1\n")
    with pytest.raises(InputError, match=r"(?i)code\.py: not a mapping"):
        read_with_base(str(tmp_path / "config.yaml"))
    assert not (tmp_path / "intruder").exists()
