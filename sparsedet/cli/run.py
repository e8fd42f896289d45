"""How a tool ends: with a result, or with one line that says what to do."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import datetime

from .. import __version__
from ..extras import needs
from .reasons import origin, reason

LOG = "sparsedet-error.log"


def run(main: Callable[[], None]) -> None:
    """Call ``main``; an error ends it in one line, and with exit status 1.

    What a user can mend is told, also where a worker process met it. What nobody expected keeps its
    traceback in a file that the line names. The status is 130 after Ctrl-C.
    """
    try:
        main()
        sys.stdout.flush()  # or what cannot be written is found out when nobody can tell
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _discard_output()  # who read it has seen enough, as head does
        sys.exit(1)
    except Exception as error:
        message = _missing_library(error) or reason(error) or _unexpected(error)
        # The traceback would keep data loaders alive, and Python would wait for their workers.
        error.__traceback__ = None
        print(f"error: {message}", file=sys.stderr)
        if isinstance(error, OSError) and not _can_flush():
            _discard_output()
        sys.exit(1)


def _missing_library(error: Exception) -> str | None:
    lack = needs(error) if isinstance(error, ImportError) else None
    return lack and f"{os.path.basename(sys.argv[0])} {lack}"


def _unexpected(error: Exception) -> str:
    """Keep the traceback in the current folder, or the system's for temporary files; the line."""
    report = (
        f"{datetime.now():%Y-%m-%d %H:%M:%S} sparsedet {__version__}: {' '.join(sys.argv)}\n"
        + "".join(traceback.format_exception(error))
    )
    first = origin(error).splitlines()[0]
    for folder in (os.getcwd(), tempfile.gettempdir()):
        try:
            with open(os.path.join(folder, LOG), "a", encoding="utf-8") as file:
                file.write(report + "\n")
        except OSError:
            continue
        return f"unexpected {first}; the traceback is in {file.name}"
    return f"unexpected {first}; {report}"


def _can_flush() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _discard_output() -> None:
    """Let Python find nothing to write at its end, which it could not."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
