#!/usr/bin/env python3
"""The same as: research/evidence. Run it without arguments for its commands."""

import sys
from pathlib import Path

import sparsedet.cli  # noqa: F401  first, for it keeps quiet what detectron2 warns of as it is imported

# isort: split
from sparsedet.cli.run import run

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent / "research"))
    from evidence.main import main

    run(main)
