"""``sparsedet COMMAND ...``: a command is a module of this package, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

from .. import __version__
from .run import run

COMMANDS = {
    "train": "train or fine-tune a detector, as detectron2's train_net does",
    "classify": "train or fine-tune a classifier of images",
    "localize": "where a classifier looks: class activation maps, boxes and errors",
    "evaluate": "accuracy of a checkpoint, or of an exported file beside it",
    "compress": "make a trained detector smaller and faster, without training",
    "export": "write ONNX or OpenVINO, to run without torch",
    "predict": "run an exported file over images or a video",
    "demo": "run a checkpoint over images or a video",
    "benchmark": "time detectors and engines side by side",
    "convert": "import VGG weights of other frameworks",
    "data": "put data sets in place, and check them",
    "web": "try exported files on a web page",
}


def main() -> None:
    """The console command."""
    if sys.argv[1:] == ["--version"]:
        print(f"sparsedet {__version__}")
    else:
        choose("sparsedet", "sparsedet.cli", COMMANDS)


def choose(program: str, package: str, commands: Mapping[str, str]) -> None:
    """Run the command that ``sys.argv[1]`` names, with the arguments after it."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in commands:
        del sys.argv[1]
        return call(program, package, name)
    usage = [f"usage: {program} COMMAND ...", ""]
    usage += [f"  {command:10} {line}" for command, line in commands.items()]
    usage += ["", f"{program} COMMAND --help tells more."]
    if name in ("", "-h", "--help"):
        print("\n".join(usage))
        return None
    sys.exit(f"error: {program} has no command {name!r}; one of {', '.join(commands)}")


def call(program: str, package: str, name: str) -> None:
    """Run one command on ``sys.argv[1:]``."""
    sys.argv[0] = f"{program} {name}"
    run(lambda: importlib.import_module(f"{package}.{name}").main())


def door(*command: str) -> None:
    """For a script that stands for ``sparsedet COMMAND``."""
    sys.argv[1:1] = command
    main()
