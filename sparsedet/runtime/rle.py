"""Masks as COCO writes them: compressed run lengths, which pycocotools reads."""

from __future__ import annotations

import numpy as np


def encode(mask: np.ndarray) -> dict:
    """``{"size": [height, width], "counts": text}`` of a (height, width) bool mask.

    The runs of zeros and ones take turns, zeros first, down the columns one after another.
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(turns, prepend=0, append=flat.size)
    return {"size": list(mask.shape), "counts": _text(runs)}


def _text(runs: np.ndarray) -> str:
    """Each run, from the fourth on less the run before the last, in digits of five bits.

    The sixth bit of a digit says that more follow, and 48 makes it a letter; the highest bit of the
    last digit is the sign.
    """
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    going, digits = np.ones(len(rest), bool), []
    while going.any():
        digit = rest & 31
        rest >>= 5
        more = np.where(digit & 16, rest != -1, rest != 0)
        digits.append(np.where(going, (digit | more << 5) + 48, 0))
        going &= more
    letters = np.stack(digits, axis=1).astype(np.uint8)
    return letters[letters > 0].tobytes().decode("ascii")
