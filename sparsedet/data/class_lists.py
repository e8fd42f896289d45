"""A list of class names, as a config or a file has it."""

from __future__ import annotations

from typing import Any

from ..errors import InputError


def check_names(where: str, names: Any) -> tuple[str, ...]:
    """The names, each once and a text.

    Args:
        where: the key or file that has them, for the messages.

    Raises:
        InputError: they are not.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise InputError(f"{where}: expected a list of class names, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: {name!r} is not a text; put quotes around it")
        if names.count(name) > 1:
            raise InputError(f"{where}: {name!r} is there more than once")
    return tuple(names)
