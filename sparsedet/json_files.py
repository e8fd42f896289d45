"""JSON of other people, which may be nested without end."""

from __future__ import annotations

import json
import os
from typing import Any

from .errors import InputError


def read_json(path: str | os.PathLike) -> Any:
    """What is in a json file.

    Raises:
        InputError: it cannot be read, is not json, or is nested too deeply.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except RecursionError:
        raise InputError(f"{path}: cannot be read as json: nested too deeply") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as json: {reason}") from None
