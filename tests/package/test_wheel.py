"""What a user gets by pip: the wheel, in an environment of its own without torch."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import sparsedet
from sparsedet.cli.main import COMMANDS
from sparsedet.extras import EXTRAS
from sparsedet.images import read_image
from sparsedet.runtime.detector import Detector

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "golden" / "files" / "model.onnx"
CONFIG = "VOC-Detection/faster_rcnn_VGG_16_sparse.yaml"
# As of a user who has set nothing.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built from the source distribution, as for the package index."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory):
    """The folder of the programs of an environment with sparsedet[deploy,web] and no more."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    command = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet"]
    command += ["--timeout", "15", "--retries", "2", "--constraint", ROOT / "constraints.txt"]
    try:
        subprocess.run(
            [*command, f"{wheel}[deploy,web]"], check=True, timeout=300,
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.fail(f"no sparsedet[deploy,web] from the package index: {reason}", pytrace=False)
    yield programs
    shutil.rmtree(folder)  # a quarter of a gigabyte


@pytest.fixture
def run(environment, tmp_path):
    """Run a program of that environment in a folder of the test: what it leaves, as text."""

    def call(program, *arguments):
        command = [environment / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )

    return call


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((128, 96), Image.Resampling.BICUBIC).save(path)
    return path


def test_the_wheel_holds_configs_licence_and_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"sparsedet/configs/{CONFIG}", "sparsedet/py.typed"} <= set(names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"sparsedet"}


def test_extras_bring_what_they_are_said_to_bring(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    requirements = {}
    for line in archive.read(metadata).decode().splitlines():
        if line.startswith("Requires-Dist: "):
            name, extra = re.fullmatch(
                r'Requires-Dist: ([\w-]+).*; extra == "(\w+)"', line
            ).groups()
            requirements.setdefault(extra, set()).add(name.lower())
    for module, extra in EXTRAS.items():
        files = chain.from_iterable(distribution(name).files for name in requirements[extra])
        assert any(file.parts[0] == module for file in files), module
    runtime = set.union(*(requirements[extra] for extra in ("deploy", "openvino", "web")))
    assert not runtime & {"torch", "torchvision", "matplotlib"}
    assert requirements["all"] == set.union(
        *(names for extra, names in requirements.items() if extra not in ("all", "dev"))
    )


def test_nothing_of_torch_is_there(run):
    for library in ("torch", "detectron2", "matplotlib"):
        assert run("python", "-c", f"import {library}").returncode == 1
    result = run("python", "-c", "import sparsedet; print(sparsedet.__file__)")
    assert "site-packages" in result.stdout and result.stderr == ""


def test_help_and_version(run):
    result = run("sparsedet", "--help")
    assert result.returncode == 0 and all(name in result.stdout for name in COMMANDS)
    assert run("sparsedet", "--version").stdout == f"sparsedet {sparsedet.__version__}\n"


def test_every_config_is_there_with_its_base(run):
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = path.relative_to(ROOT / "configs").as_posix()
        code = f"import sparsedet; print(sparsedet.model_zoo.get_config_file({name!r}))"
        file = Path(run("python", "-c", code).stdout.strip())
        assert file.read_text() == path.read_text()
        for base in re.findall('^_BASE_: "(.+)"', file.read_text(), re.MULTILINE):
            assert (file.parent / base).is_file()


def test_every_config_loads_where_torch_and_detectron2_are(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
from pathlib import Path
import sparsedet
package = Path(sparsedet.__file__).parent
for file in sorted(package.glob("configs/*/*.yaml")):
    name = file.relative_to(package / "configs").as_posix()
    print(name, sparsedet.load_config(sparsedet.model_zoo.get_config_file(name)).OUTPUT_DIR)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    loaded = {line.split()[0] for line in result.stdout.splitlines()}
    configs = ROOT / "configs"
    assert loaded == {path.relative_to(configs).as_posix() for path in configs.glob("*/*.yaml")}


def test_predict(run, photo, tmp_path):
    result = run("sparsedet", "predict", "--model", MODEL, "--input", photo, "--output", "found",
                 "--confidence-threshold", 0.3)  # fmt: skip
    assert result.returncode == 0, result.stderr
    (record,) = json.loads((tmp_path / "found" / "detections.json").read_text())
    expected = Detector(MODEL)(read_image(str(photo))).above(0.3)
    assert len(expected) > 0
    assert [found["class"] for found in record["detections"]] == expected.names
    for found, score, box in zip(record["detections"], expected.scores, expected.boxes):
        assert found["score"] == pytest.approx(score, abs=1e-3)
        assert found["box"] == pytest.approx(box.tolist(), abs=0.1)
    drawn = read_image(str(tmp_path / "found" / record["output"]))
    assert drawn.shape == (96, 128, 3) and (drawn != read_image(str(photo))).any()


def test_web(run, environment, tmp_path):
    assert run("sparsedet", "web", "--help").returncode == 0
    command = [environment / "sparsedet", "web", "--model", MODEL, "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
            with urlopen(url, timeout=30) as answer:
                assert "model.onnx" in answer.read().decode()
        finally:
            server.terminate()


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"data", "predict", "web"}))
def test_what_needs_more_says_so_in_one_line(run, command):
    result = run("sparsedet", command)
    assert result.returncode == 1 and result.stdout == ""
    assert re.fullmatch(
        rf"error: sparsedet {command} needs (PyTorch: pip install|detectron2: build it).*\n",
        result.stderr,
    )


def test_an_engine_that_is_not_installed(run, photo):
    result = run("sparsedet", "predict", "--model", MODEL, "--engine", "openvino",
                 "--input", photo, "--output", "found")  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.endswith('needs openvino: pip install "sparsedet[openvino]"\n')
