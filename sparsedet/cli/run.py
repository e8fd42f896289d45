"""How a tool ends: with a result, or with one line that says what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import InputError
from ..extras import needs


def run(main: Callable[[], None]) -> None:
    """Call ``main``; what a user can mend ends it in one line.

    That is an :class:`InputError`, also from a worker process, and a library that is missing. The
    exit status is then 1; 130 after Ctrl-C.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = _missing_library(error) or _input_error(error)
        if message is None:
            raise
        # The traceback would keep data loaders alive, and Python would wait for their workers.
        error.__traceback__ = None
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def _missing_library(error: Exception) -> str | None:
    lack = needs(error) if isinstance(error, ImportError) else None
    return lack and f"{os.path.basename(sys.argv[0])} {lack}"


def _input_error(error: Exception) -> str | None:
    """The message, if ``error`` is an InputError or a worker's report that ends with one."""
    last = (str(error).strip().splitlines() or [""])[-1]
    _, mark, message = last.partition("InputError: ")
    if mark:
        return message
    return " ".join(str(error).split()) if isinstance(error, InputError) else None
