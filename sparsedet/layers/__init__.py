"""Compact layers: torch only."""

from .low_rank import LowRankLinear, TuckerLinear
from .sparse_fusion import SparseFusionConv2d

__all__ = ["LowRankLinear", "SparseFusionConv2d", "TuckerLinear"]
