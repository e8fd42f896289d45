"""How the commands answer, and the scripts that are their doors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparsedet
from sparsedet.cli import data, main

ROOT = Path(__file__).parents[2]
# All but the one that installs: it takes no arguments.
DOORS = sorted(
    path.relative_to(ROOT / "tools").as_posix()
    for path in (*ROOT.glob("tools/*.py"), *ROOT.glob("tools/research/*.py"))
    if path.name != "install_detectron2.py"
)
COMMANDS = [
    *((name,) for name in main.COMMANDS),
    *(("data", name) for name in data.COMMANDS),
]


@pytest.fixture
def sparsedet_command(monkeypatch, capsys):
    """Run the console command in this process: exit status, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["sparsedet", *arguments])
        status = 0
        try:
            main.main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return command


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_answers_help(command, sparsedet_command):
    status, output, errors = sparsedet_command(*command, "--help")
    assert status == 0 and errors == ""
    assert output.startswith(f"usage: sparsedet {' '.join(command)} ")


@pytest.mark.parametrize("door", DOORS)
def test_every_door_answers_help(door, run_tool):
    status, errors = run_tool(door, "--help")
    assert status == 0 and not errors


def test_a_research_tool_warns_of_nothing_that_others_deprecate():
    """In a process of its own, where detectron2 is imported afresh."""
    tool = ROOT / "tools" / "research" / "prune.py"
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, tool, "--help"], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stderr == ""


def test_the_command_alone_names_all_commands(sparsedet_command):
    for arguments in ([], ["--help"], ["-h"]):
        status, output, _ = sparsedet_command(*arguments)
        assert status == 0
        assert all(f"\n  {name} " in output for name in main.COMMANDS)


def test_version(sparsedet_command):
    assert sparsedet_command("--version") == (0, f"sparsedet {sparsedet.__version__}\n", "")


def test_what_is_unknown_ends_in_one_line(sparsedet_command):
    for arguments, message in (
        (["tarin"], "error: sparsedet has no command 'tarin'; one of train, "),
        (["data", "cifar"], "error: sparsedet data has no command 'cifar'; one of voc, "),
    ):
        status, output, _ = sparsedet_command(*arguments)
        assert status.startswith(message) and "\n" not in status and output == ""
    status, _, errors = sparsedet_command("predict", "--modle", "model.onnx")
    assert status == 2 and errors.splitlines()[-1].startswith("sparsedet predict: error: ")


def run_without(library, command, folder=None):
    """The console command in a process of its own that has no such library."""
    code = (
        f"import sys; sys.modules[{library!r}] = None; sys.argv = ['sparsedet', {command!r}]; "
        "from sparsedet.cli.main import main; main()"
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command, library, message",
    [
        ("convert", "torch", "needs PyTorch: pip install torch torchvision\n"),
        ("predict", "cv2", 'needs cv2: pip install "sparsedet[deploy]"\n'),
    ],
)
def test_a_missing_library_ends_in_one_line(command, library, message):
    result = run_without(library, command)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: sparsedet {command} {message}")


def test_a_missing_module_of_the_package_itself_is_not_hidden(tmp_path):
    result = run_without("sparsedet.runtime.annotate", "predict", tmp_path)
    assert result.returncode == 1 and "ModuleNotFoundError" in result.stderr
