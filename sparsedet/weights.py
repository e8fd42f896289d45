"""What every set of weights is asked before it is loaded, saved or exported."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .errors import InputError


def check_finite(place: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are NaN or infinite: a network of them runs, and finds nothing.

    Args:
        place: what the message begins with.

    Raises:
        InputError: names the first such tensor.
    """
    seen: set[int] = set()
    for name, tensor in tensors.items():
        fresh = id(tensor) not in seen
        seen.add(id(tensor))
        if fresh and tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{place}: {name} has values that are not finite, as when training has diverged"
            )
