"""NumPy arrays in a pickle, rebuilt from checked types, shapes and bytes: the model zoo's .pkl."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from .machine import Building, encode, ordered_dict, read_pickle


def read_arrays(file: IO[bytes], calls: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Containers of numbers, texts and arrays, as NumPy 1 and 2 and Python 2 and 3 write them.

    Args:
        calls: more that the pickle may call, as of :func:`read_pickle`.

    Raises:
        ValueError: anything else; of damage nearly any other exception.
    """
    return read_pickle(file, {**_CALLS, **(calls or {})})


class _Type(Building):
    """A type of numbers while a pickle tells it."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"arrays of {code[:20]!r}; only of numbers can be read")
        self.type, self.result = np.dtype(code), self

    def build(self, state: tuple) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError("an unknown order of bytes")
        self.type = self.type.newbyteorder(order)


class _Array(Building):
    """An array, whose values come in its state."""

    def __init__(self, *_: Any):
        pass

    def build(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.result = _array(data, kind, shape, "F" if fortran else "C")


def _array(data: Any, kind: _Type, shape: tuple, order: str = "C") -> np.ndarray:
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(kind, _Type):
        raise ValueError("an array of objects")
    if order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array of no shape")
    if math.prod(shape) * kind.type.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
    return np.frombuffer(data, kind.type).reshape(shape, order=order)


def _scalar(kind: _Type, data: Any) -> Any:
    return _array(data, kind, ()).item()


_CALLS: dict[str, Any] = {
    "collections.OrderedDict": ordered_dict,
    "_codecs.encode": encode,
    "__builtin__.bytes": lambda: b"",
    "numpy.dtype": _Type,
}
for _core in ("core", "_core"):  # before NumPy 2, and since
    _CALLS[f"numpy.{_core}.multiarray._reconstruct"] = _Array
    _CALLS[f"numpy.{_core}.multiarray.scalar"] = _scalar
    _CALLS[f"numpy.{_core}.numeric._frombuffer"] = _array
