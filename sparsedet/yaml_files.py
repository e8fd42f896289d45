"""YAML of other people: read as data, whatever is in it, and in no time."""

from __future__ import annotations

import ast
import operator
import os
from typing import Any

import yaml

from .errors import InputError

LARGEST = 2**17  # bytes of a file, which are read within a second
MOST = 20_000  # values, those that an alias repeats counted again
DEEPEST = 64  # mappings and lists within each other
BASES = 16  # files in a chain of _BASE_
STEPS = 1_000  # of arithmetic in one formula


def read_yaml(path: str) -> dict[Any, Any]:
    """The mapping in a yaml file.

    Values are plain. Of the tags that build Python's objects two are known, for detectron2's own
    configs have them: ``!!python/tuple``, and ``!!python/object/apply:eval`` of arithmetic alone.

    Raises:
        InputError: the file cannot be read, is too large, would run code, refers to itself or
            unfolds to very many values, or is not a mapping.
    """
    try:
        too_large = os.path.getsize(path) > LARGEST
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if too_large:
        raise InputError(f"{path}: larger than {LARGEST // 1024} KiB, so not a config or a plan")
    try:
        with open(path, encoding="utf-8") as file:
            data = yaml.load(file, _Loader)  # noqa: S506  a SafeLoader
    except (OSError, ValueError, OverflowError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read: {reason}") from error
    _count(path, data)
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a mapping of keys to values")
    return data


def read_with_base(path: str) -> dict[Any, Any]:
    """:func:`read_yaml`, over the files that ``_BASE_`` names, as detectron2 merges them.

    Raises:
        InputError: as :func:`read_yaml`; a base is an address, is missing, or leads back.
    """
    return _with_base(path, [])


def _with_base(path: str, above: list[str]) -> dict[Any, Any]:
    if len(above) > BASES or os.path.realpath(path) in above:
        raise InputError(f"{path}: its _BASE_ leads back to itself")
    own = read_yaml(path)
    bases = own.pop("_BASE_", [])
    merged: dict[Any, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise InputError(f"{path}: _BASE_ {base!r}: must be a file; download it first")
        place = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        if not os.path.isfile(place):
            raise InputError(f"{path}: _BASE_ {base}: there is no file {place}")
        _merge(path, _with_base(place, [*above, os.path.realpath(path)]), merged)
    _merge(path, own, merged)
    return merged


def _merge(path: str, new: dict, into: dict) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise InputError(f"{path}: {key} has keys here, and none in its _BASE_")
            _merge(path, value, into[key])
        else:
            into[key] = value


def _count(path: str, data: Any) -> None:
    """Raise InputError where aliases unfold to more than MOST values, or without end."""
    count, left = 0, [data]
    while left:
        value = left.pop()
        count += 1
        if count > MOST:
            raise InputError(f"{path}: unfolds to more than {MOST} values, or refers to itself")
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value


class _Loader(yaml.SafeLoader):
    """Builds plain values."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _tuple(loader: _Loader, node: yaml.Node) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


def _formula(loader: _Loader, node: yaml.Node) -> Any:
    (text,) = loader.construct_sequence(node, deep=True)
    try:
        return _Arithmetic().value(ast.parse(str(text), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, MemoryError, TypeError) as error:
        raise yaml.constructor.ConstructorError(
            None, None, f"{str(text)[:60]!r} is not arithmetic ({error})", node.start_mark
        ) from error


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_Loader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _formula)


class _Arithmetic:
    """Numbers, lists, + - * / **, and one variable that goes through a list."""

    OPERATORS = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.Pow: operator.pow,
    }

    def __init__(self) -> None:
        self.steps = 0
        self.names: dict[str, Any] = {}

    def value(self, node: ast.expr) -> Any:
        """Of an expression; ValueError where it is anything else."""
        self.steps += 1
        if self.steps > STEPS:
            raise ValueError("too long")
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.ListComp) and len(node.generators) == 1:
            return self._each(node)
        return self._number(node)

    def _each(self, node: ast.ListComp) -> list:
        (loop,) = node.generators
        if not isinstance(loop.target, ast.Name) or loop.ifs:
            raise ValueError("only one variable that goes through a list")
        values = []
        for value in self.value(loop.iter):
            self.names[loop.target.id] = value
            values.append(self.value(node.elt))
        return values

    def _number(self, node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            number = node.value
        elif isinstance(node, ast.Name) and node.id in self.names:
            number = self.names[node.id]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = -self._operand(node.operand)
        elif isinstance(node, ast.BinOp) and type(node.op) in self.OPERATORS:
            left, right = self._operand(node.left), self._operand(node.right)
            if isinstance(node.op, ast.Pow) and abs(right) > 64:
                raise ValueError("too large a power")
            number = self.OPERATORS[type(node.op)](left, right)
        else:
            raise ValueError(f"{type(node).__name__} is not allowed")
        if isinstance(number, complex) or abs(number) > 1e12:
            raise ValueError("too large a number")
        return number

    def _operand(self, node: ast.expr) -> float:
        number = self.value(node)
        if not isinstance(number, (int, float)):
            raise ValueError("only numbers can be added and multiplied")
        return number
