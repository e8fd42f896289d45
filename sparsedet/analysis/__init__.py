"""Parameters, multiply-adds and latency of models side by side; tables, plots and pictures."""

from ..compress.survey import count_parameters
from .complexity import count_flops
from .compression import write_report
from .draw import draw_detections
from .latency import Latency, compare_latency, environment
from .report import markdown_table, plot_tradeoff, plot_training_curves, read_metrics

__all__ = [
    "Latency",
    "compare_latency",
    "count_flops",
    "count_parameters",
    "draw_detections",
    "environment",
    "markdown_table",
    "plot_tradeoff",
    "plot_training_curves",
    "read_metrics",
    "write_report",
]
