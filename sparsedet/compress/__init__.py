"""From a dense network to a compact one: plans, projection, calibration, surgery. torch only."""

import importlib
from typing import Any

from .api import compress_
from .curves import Option
from .entries import plan_to_entries, read_plan, resolve_plan, write_plan
from .plan import LayerPlan, Plan
from .profile import LayerProfile, Profile
from .projection import project_convolution, project_linear
from .request import Request
from .result import LayerResult, Result
from .sensitivity import Sensitivity, output_sensitivities
from .surgery import sparsify_
from .survey import count_parameters
from .targets import Cost, plan_for_targets
from .task import Task
from .uniform import even_plan, uniform_plan

__all__ = [
    "Cost",
    "LayerPlan",
    "LayerProfile",
    "LayerResult",
    "Option",
    "Plan",
    "Profile",
    "Request",
    "Result",
    "Sensitivity",
    "Task",
    "compress_",
    "count_parameters",
    "even_plan",
    "output_sensitivities",
    "plan_for_targets",
    "plan_to_entries",
    "project_convolution",
    "project_linear",
    "read_plan",
    "resolve_plan",
    "sparsify_",
    "uniform_plan",
    "write_plan",
]


def __getattr__(name: str) -> Any:
    if name in ("profile_layers", "sparsify_calibrated_"):  # of 0.1.0, for one release
        moved = importlib.import_module("sparsedet.moved")
        place = f"sparsedet.moved:{name}"
        return moved.finder(__name__, {name: (place, "sparsedet.compress_")})(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
