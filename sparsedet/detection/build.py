"""Building what a config describes, with one line where it describes nothing that works."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError


@contextmanager
def building(what: str) -> Iterator[None]:
    """Tell in one line why detectron2 cannot build ``what`` of a config.

    Only what follows from the config is to be in the block: whatever it raises is then the
    config's fault, and no list of exceptions would hold all that detectron2 and torch may raise.

    Raises:
        InputError: the block raised anything.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} of this config cannot be built: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The message, and where there is none, as of most assertions, the line that failed."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = str(text).splitlines()
    if lines and lines[0].strip():
        return f"{type(error).__name__}: {lines[0].strip()}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = os.path.basename(frame.filename)
    return f"{type(error).__name__} in {place}, line {frame.lineno}: {frame.line}"
