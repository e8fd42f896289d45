"""PyTorch's own files: looked through as data first, then read with ``weights_only``.

``weights_only`` alone does not do. Before torch 2.6 it could run code (CVE-2025-32434), before 2.10
a pickle of wrong sizes could corrupt memory (CVE-2026-24747), and in every version the checksums in
a file are not compared, compressed entries unfold to any size and a tensor may be far larger than
what is stored of it.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import torch

from ..errors import InputError
from ..pickles.machine import Global, encode, ordered_dict, read_pickle

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file starts that torch < 1.6 wrote
_OLDEST = (2, 6)
_SHARED = 8  # tensors may share what is stored, so that together they are larger, so many times
_CHUNK = 2**20
_SIZES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "Untyped"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}


def read_torch(path: str) -> Any:
    """What ``torch.save`` wrote: containers of numbers, texts and tensors.

    Raises:
        InputError: an old torch; damage, which is told by a checksum or a size; what is not data.
            Of damage also nearly any other exception.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
        raise InputError(
            f"{path}: torch {torch.__version__} could run code that is in it; install torch >= 2.6"
        )
    with open(path, "rb") as file:
        legacy = file.read(len(LEGACY)) == LEGACY
        file.seek(0)
        _look_through_legacy(file) if legacy else _look_through_zip(file)
    # Mapped, what nobody asks for is never in memory: an optimizer holds as much as the model.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=not legacy)


def read_outline(file: IO[bytes]) -> Any:
    """What is in a zip file of PyTorch, with None for each tensor, of which no number is read.

    Raises:
        ValueError: what is not data; of damage nearly any other exception.
    """
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if (
            not entries
            or len(entries) < len(archive.infolist())
            or archive.infolist()[0].header_offset
        ):
            raise ValueError("not a zip file as PyTorch writes it")
        folder = next(iter(entries)).partition("/")[0]
        if f"{folder}/constants.pkl" in entries:
            raise ValueError("a TorchScript archive")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("it is compressed, as PyTorch writes no file; unpack it")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise ValueError("its entries are larger than the file")
        stored = {
            name.removeprefix(f"{folder}/data/"): entry.file_size
            for name, entry in entries.items()
            if name.startswith(f"{folder}/data/")
        }
        data = io.BytesIO(archive.read(f"{folder}/data.pkl"))
    return read_pickle(data, *_tensor_calls(size, stored))


def _look_through_zip(file: IO[bytes]) -> None:
    read_outline(file)
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():  # zipfile compares the checksum at the end of an entry
            with archive.open(name) as entry:
                while entry.read(_CHUNK):
                    pass


def _look_through_legacy(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    for _ in range(3):  # a magic number, a version, and what the machine was like
        read_pickle(file, {})
    read_pickle(file, *_tensor_calls(size, None))


@dataclass
class _Storage:
    size: int  # bytes
    item: int  # bytes of an element


def _tensor_calls(size: int, stored: dict[str, int] | None) -> tuple[dict[str, Any], Any]:
    """What :func:`read_pickle` needs for a file of ``size`` bytes.

    ``stored``: the size of each entry; None where storages come one by one after the pickle.
    """
    named: dict[str, int] = {}
    left = {"stored": size, "shared": _SHARED * size}

    def take(what: str, count: int) -> None:
        left[what] -= count
        if left[what] < 0:
            raise ValueError("its tensors are larger than the file")

    def storage(name: tuple) -> _Storage:
        kind, dtype, key, _, count = name[:5]
        if kind != "storage" or not isinstance(dtype, Global) or not _natural(count):
            raise ValueError("an unknown kind of storage")
        total = count * _SIZES[dtype.name.rpartition(".")[2].removesuffix("Storage")]
        if stored is not None and stored[key] != total:
            raise ValueError(f"{key} has {stored[key]} bytes, where {total} are named")
        if named.setdefault(key, total) != total:
            raise ValueError(f"{key} has two sizes")
        if stored is None:
            take("stored", total)
        return _Storage(total, total // count if count else 1)

    def tensor(store: _Storage, offset: int, shape: tuple, stride: tuple, *rest: Any) -> None:
        if not isinstance(store, _Storage) or not _natural(offset, *shape, *stride):
            raise ValueError("a tensor of no shape")
        # What torch stores as bytes has its type beside the shape.
        kinds = [value.name.removeprefix("torch.") for value in rest if isinstance(value, Global)]
        item = getattr(torch, kinds[0]).itemsize if kinds else store.item
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count and max(offset + count, last + 1) * item > store.size:
            raise ValueError(f"a tensor of shape {shape} is larger than what is stored of it")
        take("shared", count * item)

    calls = {
        "collections.OrderedDict": ordered_dict,
        "collections.Counter": ordered_dict,
        "_codecs.encode": encode,
        "builtins.set": lambda values: None,
        "__builtin__.set": lambda values: None,
        "torch.Size": lambda values: None,
        "torch.device": lambda *place: None,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor,
        "torch._utils._rebuild_parameter": lambda *parameter: None,
    }
    return calls, storage


def _natural(*numbers: Any) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)
