"""What several test files share."""

import logging
import runpy
import sys
from pathlib import Path

import pytest
from detectron2.utils.logger import setup_logger

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_tool(monkeypatch, capfd):
    """Run a tool of this project in this process: its exit status, and its lines on stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        finally:
            # They would go on writing to this test's stdout when it is closed.
            setup_logger.cache_clear()
            for logger in ("detectron2", "fvcore"):
                logging.getLogger(logger).handlers.clear()
        return status, capfd.readouterr().err.splitlines()

    return run
