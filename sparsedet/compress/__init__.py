"""From a dense network to a compact one: plans, projection, calibration, surgery. torch only."""

from .calibrate import sparsify_calibrated_, sparsify_counted_
from .curves import Option
from .entries import plan_to_entries, resolve_plan
from .layer_times import measure_latency, time_layers
from .plan import LayerPlan, Plan, uniform_plan
from .profile import LayerProfile, Profile, profile_layers
from .projection import project_convolution, project_linear
from .report import LayerReport, Report
from .sensitivity import Metric, output_metrics
from .surgery import sparsify_
from .targets import Cost, plan_for_targets

__all__ = [
    "Cost",
    "LayerPlan",
    "LayerProfile",
    "LayerReport",
    "Metric",
    "Option",
    "Plan",
    "Profile",
    "Report",
    "measure_latency",
    "output_metrics",
    "plan_for_targets",
    "plan_to_entries",
    "profile_layers",
    "project_convolution",
    "project_linear",
    "resolve_plan",
    "sparsify_",
    "sparsify_calibrated_",
    "sparsify_counted_",
    "time_layers",
    "uniform_plan",
]
