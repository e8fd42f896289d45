"""Official dataset archives, unpacked to where detectron2 expects their content."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence

from ..errors import InputError


def install_archives(
    folder: str, names: Sequence[str], page: str, inside: str, target: str
) -> None:
    """Unpack those of the archives `names` that are in `folder`, merging them into `target`.

    Files appear in `target` only when all archives are unpacked, and none lands outside.

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
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=os.replace)  # merges
    for name in names:
        if name not in found:
            print(f"not in {folder}: {name}; get it from {page}")


def _unpack(archive: str, target: str) -> None:
    print(f"unpacking {archive}", flush=True)
    # Members that would land outside: a tar's are refused, a zip's left out.
    safely = {} if archive.endswith(".zip") else {"filter": "data"}
    try:
        shutil.unpack_archive(archive, target, **safely)
    except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{archive}: cannot be unpacked: {error}; download it again") from None
