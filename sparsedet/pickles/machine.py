"""A pickle read as data: its own small machine, in which nothing but containers can be made.

Python's unpickler, restricted, still calls NumPy's ``__setstate__`` and ``scalar``, which trust
what they are given, and takes gigabytes for a file of ten bytes. Here :mod:`pickletools` only cuts
a pickle into operations, and each that a real checkpoint has is done by hand.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

OPERATIONS = 2_000_000  # in one pickle; the largest checkpoints have a few hundred thousand
_MARK = object()


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names, as a name only."""

    name: str


class Building:
    """An object that a pickle makes before it gives its state; ``result`` is what it becomes."""

    result: Any = None

    def build(self, state: Any) -> None:
        """Set ``result``."""
        raise NotImplementedError


def read_pickle(
    file: IO[bytes],
    calls: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object in a pickle of protocol 2 to 5; ``file`` is left behind its end.

    Args:
        calls: "module.name" that the pickle may call to what is called in its place.
        persistent: of an id of ``persistent_id`` to what it stands for.

    Raises:
        ValueError: what is not data, and of damage nearly any other exception.
    """
    machine = _Machine(calls, persistent)
    for count, (operation, argument, _) in enumerate(pickletools.genops(_Bounded(file))):
        if count > OPERATIONS:
            raise ValueError(f"more than {OPERATIONS} operations in a pickle")
        machine.step(operation.name, argument)
    (result,) = machine.stack
    return result


class _Bounded:
    """A file of which no more is read than it has: a length in a pickle may be any number."""

    def __init__(self, file: IO[bytes]):
        start = file.tell()
        self.file, self.size = file, file.seek(0, os.SEEK_END)
        file.seek(start)
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size))


class _Machine:
    ARGUMENTS = frozenset(  # operations that push their argument
        "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
        "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINSTRING SHORT_BINSTRING".split()
    )
    VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK, "EMPTY_TUPLE": ()}
    EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
    TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

    def __init__(self, calls: Mapping[str, Callable], persistent: Callable | None):
        self.calls, self.persistent = calls, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in self.ARGUMENTS:
            self.stack.append(argument)
        elif name in self.VALUES:
            self.stack.append(self.VALUES[name])
        elif name in self.EMPTY:
            self.stack.append(self.EMPTY[name]())
        elif name in self.TUPLES:
            self.stack[-self.TUPLES[name] :] = [tuple(self.stack[-self.TUPLES[name] :])]
        elif name == "TUPLE":
            self.stack.append(tuple(self._above_mark()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            value = self.memo[argument]
            self.stack.append(value.result if isinstance(value, Building) else value)
        elif name not in ("PROTO", "FRAME", "STOP"):
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise ValueError(f"the operation {name} is not in a pickle of data")
            step(argument)

    def _above_mark(self) -> list:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        _of_type(self.stack[-1], list).append(value)

    def _appends(self, _: None) -> None:
        values = self._above_mark()
        _of_type(self.stack[-1], list).extend(values)

    def _additems(self, _: None) -> None:
        values = self._above_mark()
        _of_type(self.stack[-1], set).update(map(_plain_key, values))

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _of_type(self.stack[-1], dict)[_plain_key(key)] = value

    def _setitems(self, _: None) -> None:
        values = self._above_mark()
        target = _of_type(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_plain_key(key)] = value

    def _global(self, argument: str) -> None:
        self.stack.append(Global(argument.replace(" ", ".")))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(f"{module}.{name}"))

    def _binpersid(self, _: None) -> None:
        if self.persistent is None:
            raise ValueError("it refers to data outside the pickle")
        self.stack.append(self.persistent(self.stack.pop()))

    def _reduce(self, _: None) -> None:
        arguments, called = _of_type(self.stack.pop(), tuple), self.stack.pop()
        name = _of_type(called, Global).name
        if name not in self.calls:
            raise ValueError(f"{name} is not data")
        self.stack.append(self.calls[name](*arguments))

    def _build(self, _: None) -> None:
        """An object gets its state; a dict has attributes, as a state_dict its versions."""
        state = self.stack.pop()
        if type(self.stack[-1]) is not dict:
            self.stack[-1].build(state)
            self.stack[-1] = self.stack[-1].result


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _plain_key(key: Any) -> Any:
    """``key``, if its hash is found at once, which that of a deep tuple is not."""
    scalars = (str, bytes, int, float, bool, type(None))
    parts = key if type(key) is tuple else (key,)
    if not all(type(part) in scalars for part in parts):
        raise ValueError(f"a {type(key).__name__} as a key")
    return key


def ordered_dict(pairs: Any = ()) -> dict:
    """What ``collections.OrderedDict`` makes of its arguments, in a pickle of data."""
    return {_plain_key(key): value for key, value in _of_type(list(pairs), list)}


def encode(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` makes, as Python 3 writes bytes in protocol 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes written as {str(encoding)[:20]}")
    return text.encode("latin1")
