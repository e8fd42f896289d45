"""ONNX Runtime, OpenVINO and Ray, imported so that they tell their makers nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from .extras import require


def require_engine(module: str, what: str) -> ModuleType:
    """Import ``onnxruntime``, ``openvino``, ``ray`` or a part of them, with telemetry off.

    Left alone, ONNX Runtime (seen in 1.32) sends events to Microsoft and OpenVINO's converter (seen
    in 2026.4) to Google Analytics, and both keep a number for the machine in the home folder; a Ray
    cluster (seen in 2.60) that it starts reports its use.
    OpenVINO that was imported before, by others, stays as it is.

    Raises:
        InputError: as :func:`sparsedet.extras.require`.
    """
    if module.partition(".")[0] == "openvino":
        with _hidden("openvino_telemetry"):
            return require(module, what)
    if module.partition(".")[0] == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        return require(module, what)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library loads
    require("onnxruntime", what).disable_telemetry_events()
    return require(module, what)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make it look as if a module were not installed; OpenVINO then has an empty stand-in."""
    known = {name: sys.modules.pop(name) for name in [*sys.modules] if _is_part(name, module)}
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own mark of it
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(known)


def _is_part(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
