"""The checksum at the end of an exported file: a changed weight would run, and find other things.

It tells damage, not intent: who changes a file on purpose can write a new one.
"""

from __future__ import annotations

import hashlib
import os
import re

from ..errors import InputError

CHANGED = "damaged, or changed since sparsedet export wrote it; export it again"
NAME = b"sparsedet.sha256"
_DIGITS = 64
# ONNX: one more entry, a key and a value, of the metadata (field 14) of a ModelProto. A protocol
# buffer is what its parts are, one after the other.
_ONNX = b"\x72" + bytes([4 + len(NAME) + _DIGITS]) + b"\x0a" + bytes([len(NAME)]) + NAME + b"\x12@"
# OpenVINO: a comment after the XML.
_XML = (b"<!-- " + NAME + b" ", b" -->\n")


def seal(path: str) -> None:
    """Write the checksum to the end of an .onnx file, or of an .xml with the .bin beside it."""
    before, after = _XML if path.endswith(".xml") else (_ONNX, b"")
    digest = _digest(path, os.path.getsize(path))
    with open(path, "ab") as file:
        file.write(before + digest + after)


def is_sealed(path: str) -> bool:
    """Whether a file has a checksum, and it is right; those that 0.1.0 wrote have none.

    Raises:
        InputError: it is wrong.
    """
    before, after = _XML if path.endswith(".xml") else (_ONNX, b"")
    start = os.path.getsize(path) - len(before) - _DIGITS - len(after)
    with open(path, "rb") as file:
        file.seek(max(0, start))
        end = file.read()
    found = re.fullmatch(re.escape(before) + rb"([0-9a-f]{64})" + re.escape(after), end)
    if found is not None and found[1] != _digest(path, start):
        raise InputError(f"{path}: {CHANGED}")
    return found is not None


def _digest(path: str, size: int) -> bytes:
    """Of the first ``size`` bytes of a file, and of the .bin beside an .xml."""
    digest = hashlib.sha256()
    sizes = {path: size}
    weights = os.path.splitext(path)[0] + ".bin"
    if path.endswith(".xml") and os.path.isfile(weights):
        sizes[weights] = os.path.getsize(weights)
    for name, left in sizes.items():
        with open(name, "rb") as file:
            while block := file.read(min(left, 1 << 20)):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest().encode()
