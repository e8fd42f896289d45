"""Nothing leaves the machine: no name is looked up and no connection made by what commands do."""

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sparsedet.data import generate_shapes
from sparsedet.runtime.model_info import KEY, ModelInfo

ROOT = Path(__file__).parents[2]
COMMAND = "from sparsedet.cli.main import main; main()"
# In every process: what Python itself would look up or send, to a file.
AUDIT = """
import os, sys

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        with open(os.environ["NETWORK_LOG"], "a") as file:
            print(event, *arguments, file=file)

sys.addaudithook(note)
"""
CONFIG = f"""
_BASE_: {ROOT}/configs/Shapes-Detection/faster_rcnn_VGG_11.yaml
MODEL: {{DEVICE: cpu, VGG: {{WIDTH_MULTIPLIER: 0.125}}, ROI_BOX_HEAD: {{FC_DIM: 32}}}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 1, STEPS: [], WARMUP_ITERS: 0, BASE_LR: 0.001}}
TEST: {{EVAL_PERIOD: 0}}
DATALOADER: {{NUM_WORKERS: 0}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, a config and an exported file that finds one cup."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(AUDIT)
    generate_shapes(str(folder / "shapes"), num_train=4, num_test=2, image_size=(128, 96))
    (folder / "config.yaml").write_text(CONFIG)
    outputs = {"boxes": np.float32([[2, 3, 20, 15]]), "scores": np.float32([0.9]), "classes": [0]}
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(np.asarray(value)))
        for key, value in outputs.items()
    ]
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "classes": TensorProto.INT64}
    values = [helper.make_tensor_value_info(key, kind, None) for key, kind in kinds.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [None, None, 3])
    graph = helper.make_graph(nodes, "detector", [image], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    info = ModelInfo(["cup"], "BGR", 0, 0, 8, 0.05, "f32", "0")
    helper.set_model_props(model, {KEY: info.to_json()})
    onnx.save(model, folder / "cup.onnx")
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(
        folder / "photo.png"
    )
    return folder


@pytest.fixture
def watch(folder, tmp_path):
    """Start the command in a folder, watched; then: what it sent, and what it left at home.

    Where strace may be used, it sees what libraries of other languages do, too.
    """
    log, trace, home = (tmp_path / name for name in ("network.log", "strace.log", "home"))
    home.mkdir()
    # -D: the command itself is our child, and gets our signals.
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", trace]
    strace += ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    if not shutil.which("strace") or subprocess.run([*strace, "true"]).returncode:
        strace = []

    def start(*arguments):
        path = os.pathsep.join([str(folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "NETWORK_LOG": str(log), "HOME": str(home)}
        environment |= {"DETECTRON2_DATASETS": str(folder)}
        for name in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        return subprocess.Popen(
            [*strace, sys.executable, "-c", COMMAND, *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sent():
        lines = log.read_text().splitlines() if log.exists() else []
        if trace.exists():
            lines += [line for line in trace.read_text().splitlines() if "AF_INET" in line]
        return [line for line in lines if "127.0.0.1" not in line]

    def left():
        kept = [path.name.lower() for path in home.rglob("*")]
        return [name for name in kept if "deviceid" in name or "_cid" in name]

    return start, sent, left


def test_the_watch_sees_a_lookup(watch, folder, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__],
        "COMMAND",
        "import socket\ntry: socket.getaddrinfo('example.invalid', 80)\nexcept OSError: pass",
    )
    start, sent, _ = watch
    start().communicate(timeout=60)
    assert any("example.invalid" in line for line in sent())


def test_commands_look_nothing_up(watch, folder):
    """A minute: every command in a process of its own, for the libraries start afresh in each."""
    start, sent, left = watch
    config, photo = ("--config-file", folder / "config.yaml"), folder / "photo.png"
    weights = ("--weights", folder / "out" / "model_final.pth")
    shapes = folder / "shapes" / "JPEGImages"
    for command in (
        ("train", *config, "OUTPUT_DIR", folder / "out"),
        ("compress", *config, *weights, "--target-params", "2x", "--output", folder / "compact"),
        ("export", *config, *weights, "--output", folder / "m.xml", "--precision", "int8",
         "--images", shapes),
        ("predict", "--model", folder / "cup.onnx", "--input", photo, "--output", folder / "a"),
        ("predict", "--model", folder / "m.xml", "--engine", "openvino", "--input", photo,
         "--output", folder / "b"),
    ):  # fmt: skip
        process = start(*command)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        assert not sent(), command
        assert not left(), command


def test_the_page_looks_nothing_up(watch, folder):
    pytest.importorskip("flask")
    start, sent, left = watch
    with start("web", "--model", folder / "cup.onnx", "--port", 0) as process:
        try:
            url = next(line for line in process.stdout if "http" in line).split()[3]
            with urlopen(url) as answer:
                assert b"cup.onnx" in answer.read()
            time.sleep(2)  # for what a library sends after a while
        finally:
            process.terminate()
    assert not sent() and not left()


def test_engines_are_imported_in_one_place():
    for path in (ROOT / "sparsedet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not {"onnxruntime", "openvino"} & {n.partition(".")[0] for n in names}, path
