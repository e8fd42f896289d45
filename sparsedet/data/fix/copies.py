"""A folder again, of which some files become others."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...errors import InputError
from ..convert import link, write_text

BOX_LEFT_OUT = "boxes left out"
BOX_MENDED = "boxes put in order or clipped"
SIZE_MENDED = "image sizes taken from the image"
FILE_LEFT_OUT = "files left out, without a counterpart or not readable"


def copy_folder(source: str, target: str, changes: Mapping[str, str | None]) -> None:
    """Link every file below `source`, but for those that get other texts or, as None, none.

    Raises:
        InputError: `target` is below `source`.
    """
    source = os.path.normpath(source)
    if os.path.commonpath(map(os.path.realpath, (source, target))) == os.path.realpath(source):
        raise InputError(
            f"{target}: is below {source}, of which it is a copy; choose another place"
        )
    changes = {os.path.normpath(path): text for path, text in changes.items()}
    for folder, _, names in os.walk(source):
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            new = os.path.join(target, os.path.relpath(path, source))
            if path not in changes:
                link(path, new)
            elif changes[path] is not None:
                write_text(new, changes[path])
