"""What a sparse kernel is: taps, phases, patterns and their cost. Pure geometry, no tensors."""

from .cost import fusion_weights, low_rank_weights, tucker_weights
from .patterns import PATTERNS, Pattern, Phase, SparseKernel, sparse_kernels

__all__ = [
    "PATTERNS",
    "Pattern",
    "Phase",
    "SparseKernel",
    "fusion_weights",
    "low_rank_weights",
    "sparse_kernels",
    "tucker_weights",
]
