"""Which classes a set of weights tells apart, in the order of its outputs.

Written beside the weights as the preprocessing is: datasets list the same classes in many orders.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import InputError
from .torch_files import read_outline

KEY = "class_names"  # in a checkpoint, and of the attribute of a model


def model_class_names(model: nn.Module) -> list[str] | None:
    """Those of a detectron2 model, or of the one that a wrapper holds; None if it does not know."""
    known = (getattr(module, KEY, None) for module in model.modules())
    return next((names for names in known if isinstance(names, list) and names), None)


def read_class_names(checkpoint: Mapping[str, Any], path: str) -> list[str] | None:
    """Those that a checkpoint says; None for one of an earlier version.

    Raises:
        InputError: what it says is not a list of names.
    """
    names = checkpoint.get(KEY)
    if names is None:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: its {KEY} is not a list of names")
    return names


def stored_class_names(path: str) -> list[str] | None:
    """Those that a checkpoint file says, of which no tensor is read."""
    if not path.endswith(".pth") or not os.path.isfile(path) or not zipfile.is_zipfile(path):
        return None
    try:
        with open(path, "rb") as file:
            outline = read_outline(file)
    except Exception:  # loading it in earnest says what is wrong
        return None
    return read_class_names(outline, path) if isinstance(outline, dict) else None
