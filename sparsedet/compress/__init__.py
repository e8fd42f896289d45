"""From a dense network to a compact one: plans, projection, surgery. torch only."""

from .plan import LayerPlan, Plan, resolve_plan, uniform_plan
from .projection import project_convolution, project_linear
from .surgery import sparsify_

__all__ = [
    "LayerPlan",
    "Plan",
    "project_convolution",
    "project_linear",
    "resolve_plan",
    "sparsify_",
    "uniform_plan",
]
