"""Old places; see the changelog."""

from ..moved import finder

NAME = "optimize_for_inference"

__getattr__ = finder(
    __name__, {NAME: (f"sparsedet.exporting.optimize:{NAME}", f"sparsedet.{NAME}")}
)
