"""The checksum at the end of an exported file: a changed weight would run, and find other things.

It tells damage, not intent: who changes a file on purpose can write a new one.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import IO, Any

from ..errors import InputError

NAME = b"sparsedet.sha256"
_DIGITS = 64
_BLOCK = 1 << 20  # bytes
# ONNX: one more entry, a key and a value, of the metadata (field 14) of a ModelProto. A protocol
# buffer is what its parts are, one after the other.
_ONNX = b"\x72" + bytes([4 + len(NAME) + _DIGITS]) + b"\x0a" + bytes([len(NAME)]) + NAME + b"\x12@"
# OpenVINO: a comment after the XML.
_XML = (b"<!-- " + NAME + b" ", b" -->\n")

# What a file says that another version than 0.1 wrote; looked for before an engine reads it.
_LATER = re.compile(rb'version(?:"|&quot;): (?:"|&quot;)(?!0\.[01]\.)\d+\.')


def seal(path: str) -> None:
    """Write the checksum to the end of an .onnx file, or of an .xml with the .bin beside it."""
    before, after = _XML if path.endswith(".xml") else (_ONNX, b"")
    with open(path, "rb+") as file:
        digest = _digest(path, file, os.path.getsize(path))
        file.write(before + digest + after)


def check_seal(path: str) -> None:
    """Compare a file with its checksum; those that 0.1.0 wrote have none.

    Raises:
        InputError: the file has changed since it was written.
    """
    before, after = _XML if path.endswith(".xml") else (_ONNX, b"")
    end = re.compile(re.escape(before) + rb"([0-9a-f]{64})" + re.escape(after))
    start = max(0, os.path.getsize(path) - len(before) - _DIGITS - len(after))
    with open(path, "rb") as file:
        file.seek(start)
        found = end.fullmatch(file.read())
        file.seek(0)
        if found[1] != _digest(path, file, start) if found else _LATER.search(file.read()):
            raise InputError(
                f"{path}: damaged, or changed since sparsedet export wrote it; export it again"
            )


def _digest(path: str, file: IO[bytes], size: int) -> bytes:
    """Of the next ``size`` bytes of a file, and of the .bin beside an .xml."""
    digest = hashlib.sha256()
    _update(digest, file, size)
    weights = os.path.splitext(path)[0] + ".bin"
    if path.endswith(".xml") and os.path.isfile(weights):
        with open(weights, "rb") as beside:
            _update(digest, beside, os.path.getsize(weights))
    return digest.hexdigest().encode()


def _update(digest: Any, file: IO[bytes], size: int) -> None:
    """Block by block: a dense detector has half a gigabyte."""
    while size and (block := file.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
