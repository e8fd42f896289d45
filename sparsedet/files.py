"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InputError


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield a temporary path beside ``path``; it takes ``path``'s place when the block succeeds.

    Raises:
        InputError: the file cannot be written (no such folder, no permission, disk full).
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be written: {reason}") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Yield a temporary folder beside ``path``; it becomes ``path`` when the block succeeds.

    Raises:
        InputError: there is something at ``path`` already, or it cannot be written.
    """
    path = os.path.normpath(path)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise InputError(f"{path}: exists already; choose a new folder")
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(temporary)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
