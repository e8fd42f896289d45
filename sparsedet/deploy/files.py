"""Files that are either the old one or the new one, never half of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError


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
