"""Files and folders that are there whole or not at all, and folders that one run at a time uses."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

LOCK = ".lock"


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield a temporary path beside ``path``; it takes ``path``'s place when the block succeeds.

    Raises:
        InputError: the file cannot be written (no such folder, no permission, disk full).
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        yield temporary
        # A machine that loses power must not be left with the new name and none of the bytes.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be written: {reason}") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def make_folder(path: str) -> None:
    """Make a folder, unless it is there, for what a command writes.

    Raises:
        InputError: it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {path}: {error.strerror}") from error


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Yield a temporary folder beside ``path``; it becomes ``path`` when the block succeeds.

    Raises:
        InputError: there is something at ``path`` already, another process is writing it, or it
            cannot be written.
    """
    path = os.path.normpath(path)
    with working_folder(f"{path}.tmp", path) as temporary:
        if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
            raise InputError(f"{path}: exists already; choose a new folder")
        try:
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        with suppress(FileNotFoundError):
            os.remove(os.path.join(path, LOCK))


@contextmanager
def working_folder(path: str, result: str) -> Iterator[str]:
    """Yield ``path``, an empty folder that is held as by :func:`locked`, and gone afterwards.

    What a killed process left there is removed first. Errors name ``result``.
    """
    with locked(path, result):
        try:
            for entry in os.scandir(path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                elif entry.name != LOCK:
                    os.remove(entry.path)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(folder: str, name: str = "") -> Iterator[None]:
    """Hold a folder, made if it is missing, against other processes.

    The lock is the kernel's, on a file in the folder: it ends with the process, however that ends,
    and processes forked from it do not have it, so none outlives the run.

    Errors name ``name``, by default the folder.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    path, name = os.path.join(folder, LOCK), name or folder
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(path if fcntl else os.devnull, "a+")
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {error.strerror or error}") from error
    with file:
        if fcntl and not (_lock(file) and _is_at(file, path)):
            file.seek(0)
            raise InputError(
                f"{name}: another run is at work in it (process {file.read().strip() or '?'}); "
                "wait for its end, or name another folder"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock(file: IO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Other errors are those of a file system without locks.
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _is_at(file: IO, path: str) -> bool:
    """Whether the open file is still the one at ``path``: its holder may have moved it away."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def replacing_folder(path: str) -> Iterator[str]:
    """Yield a temporary folder beside ``path``; it takes its place when the block succeeds.

    A process that is killed while the two change places leaves the old one at ``path.old``;
    :func:`restore_folder` puts it back.

    Raises:
        InputError: it cannot be written, or another process is writing it.
    """
    with working_folder(f"{path}.tmp", path) as temporary:
        yield temporary
        try:
            if os.path.lexists(path):
                os.replace(path, f"{path}.old")
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        shutil.rmtree(f"{path}.old", ignore_errors=True)
        with suppress(FileNotFoundError):
            os.remove(os.path.join(path, LOCK))


def restore_folder(path: str) -> None:
    """Bring back what :func:`replacing_folder` was killed over."""
    if os.path.isdir(f"{path}.old") and not os.path.lexists(path):
        os.replace(f"{path}.old", path)
    shutil.rmtree(f"{path}.old", ignore_errors=True)
