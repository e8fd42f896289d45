"""Compact layers: torch only."""

from .low_rank import LowRankLinear
from .sparse_fusion import SparseFusionConv2d

__all__ = ["LowRankLinear", "SparseFusionConv2d"]
