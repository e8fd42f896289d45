"""Official dataset archives, unpacked to where detectron2 expects their content."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence

from tqdm import tqdm

from ..errors import InputError


def install_archives(
    folder: str, names: Sequence[str], page: str, inside: str, target: str
) -> None:
    """Unpack those of the archives `names` that are in `folder`, merging them into `target`.

    Files appear in `target` only when all archives are unpacked. Members that would land outside
    are refused.

    Args:
        page: where to get them, for the messages.
        inside: the folder within the archives whose content goes to `target`; "" for all.

    Raises:
        InputError: none of the archives is there, or one cannot be unpacked.
    """
    found = [name for name in names if os.path.isfile(os.path.join(folder, name))]
    if not found:
        raise InputError(f"{folder}: none of {', '.join(names)} is there; get them from {page}")
    os.makedirs(target, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unpack-") as temporary:
        for name in found:
            _unpack(os.path.join(folder, name), temporary)
        source = os.path.join(temporary, inside)
        if not os.path.isdir(source):
            raise InputError(f"{os.path.join(folder, found[0])}: holds no folder {inside}")
        _merge(source, target)
    for name in names:
        if name not in found:
            print(f"not in {folder}: {name}; get it from {page}")


def _unpack(archive: str, target: str) -> None:
    label = f"unpacking {os.path.basename(archive)}"
    try:
        if archive.endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                for member in tqdm(file.infolist(), desc=label):
                    file.extract(member, target)  # drops .. and leading /
        else:
            with tarfile.open(archive) as file:
                for member in tqdm(file, desc=label):
                    file.extract(member, target, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{archive}: cannot be unpacked: {error}; download it again") from None


def _merge(source: str, target: str) -> None:
    for folder, _, files in os.walk(source):
        into = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        os.makedirs(into, exist_ok=True)
        for name in files:
            os.replace(os.path.join(folder, name), os.path.join(into, name))
