"""Changed copies of a real file, drawn by Hypothesis."""

import re
from functools import lru_cache

from hypothesis import strategies as st

# What numbers, lengths and flags in a binary file like least.
BYTES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 8]
BYTES += [b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\x80", b"\0\0\0\0\0\0\0\x80", b"\1" * 16]
# And in a text.
TEXTS = "nan -inf 1e400 -1 0 1.5 99999999999 1e9 null true [] {} [[[]]] '' \"\" x \0 \n é".split(
    " "
)
TEXTS = [text.encode() for text in TEXTS] + [b"9" * 5000, b"[" * 3000, b"\xff\xfe", b"  "]

EDITS = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),  # where
        st.booleans(),  # anywhere, or near a name
        st.sampled_from(["flip", "set", "insert", "delete", "copy", "cut"]),
        st.sampled_from(BYTES + TEXTS) | st.binary(min_size=1, max_size=9),
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=4,
)


def mutate(content: bytes, edits: list, text: bool) -> bytes:
    """``content`` after ``edits``; of a ``text``, whole words are replaced."""
    names = _names(content, text)
    changed = bytearray(content)
    for where, anywhere, kind, new, count in edits:
        where = where * 2654435761 % 2**32  # drawn numbers are often small
        if anywhere or not names:
            start = where % max(1, len(changed))
            end = start + 1
        else:
            start, end = names[where % len(names)]
            if not text:  # lengths and types stand just before and after a name
                start = max(0, start - 12 + where // 2**16 % (end - start + 24))
        if kind == "flip" and start < len(changed):
            changed[start] ^= 1 << count % 8
        elif kind == "set":
            changed[start : end if text else start + len(new)] = new
        elif kind == "insert":
            changed[start:start] = new
        elif kind == "delete":
            del changed[start : start + count]
        elif kind == "copy":
            changed[start:start] = changed[start : start + 16 * count]
        elif kind == "cut" and count < 8:  # most of what is cut ends alike
            del changed[start:]
    return bytes(changed)


@lru_cache(16)  # of every case, a reader's few files are looked through once
def _names(content: bytes, text: bool) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(rb"[\w.+-]+" if text else rb"\w{4,}", content)]
