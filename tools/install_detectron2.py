#!/usr/bin/env python3
"""The same as: install/install_detectron2.py."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent / "install"
    sys.path.insert(0, str(folder))  # where the list of mends is
    runpy.run_path(str(folder / "install_detectron2.py"), run_name="__main__")
