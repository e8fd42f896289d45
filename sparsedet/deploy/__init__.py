"""Old places; see the changelog."""

import warnings
from typing import Any

NAMES = ("Detections", "Detector")


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not by way of the other old places: these two need no torch.
    from ..runtime import detector

    warnings.warn(
        f"{__name__}.{name} goes in the next release: use sparsedet.{name}",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(detector, name)
