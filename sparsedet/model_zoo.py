"""The configs that come with sparsedet, by the names that they have under configs/."""

from __future__ import annotations

import difflib
from pathlib import Path

from .errors import InputError


def get_config_file(name: str) -> str:
    """The path of a config, such as ``VOC-Detection/faster_rcnn_VGG_16_sparse.yaml``.

    Raises:
        InputError: there is no such config.
    """
    folder = _folder()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)
        raise InputError(f"{name}: no such config in sparsedet's model zoo; nearest: {nearest[0]}")
    return str(folder / name)


def _folder() -> Path:
    """Inside the package where that was installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
