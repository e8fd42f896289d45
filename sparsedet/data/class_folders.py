"""ImageNet-style folders: ROOT/SPLIT/CLASS/image, or ROOT/CLASS/image, any depth below CLASS."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import InputError
from .shares import Share
from .voc_images import is_image


def read_folders(root: str, split: str | Share | None, classes: Sequence[str]) -> list[dict]:
    """The images of a split, in the order of their names.

    Args:
        split: the folder's name; a share of all images, or None for all, where there are none.
        classes: all that may be there.

    Returns:
        one dict per image: file_name, image_id (the path below the split), label (the place of the
        class in ``classes``).

    Raises:
        InputError: there is no such folder, a class has no image or is not one of ``classes``.
    """
    top = os.path.join(root, split) if isinstance(split, str) else root
    splits = find_splits(root)
    if splits and not isinstance(split, str):
        raise InputError(f"{root}: has the splits {', '.join(splits)}; name one by split")
    if not os.path.isdir(top):
        raise InputError(f"{top}: no such folder; {root} has {', '.join(_folders(root)) or 'none'}")
    records = []
    for name in _folders(top):
        if name not in classes:
            known = ", ".join(classes[:5])
            raise InputError(f"{os.path.join(top, name)}: no such class; those are {known} ...")
        images = _images(os.path.join(top, name))
        if not images:
            raise InputError(
                f"{os.path.join(top, name)}: no image in this class folder; remove it, or fill it"
            )
        label = classes.index(name)
        for path in images:
            image_id = os.path.relpath(path, top)
            records.append({"file_name": path, "image_id": image_id, "label": label})
    if not records:
        raise InputError(f"{top}: no class folders in it; expected {top}/CLASS/image.jpg")
    if isinstance(split, Share):
        taken = split.take([record["image_id"] for record in records], root)
        records = [record for record in records if record["image_id"] in taken]
    return records


def read_classes(root: str) -> list[str]:
    """The names of the class folders, sorted; those of all splits must be the same.

    Raises:
        InputError: there are none, or a split has others.
    """
    splits = find_splits(root)
    found = {split: _folders(os.path.join(root, split)) for split in splits} or {"": _folders(root)}
    (first, classes), *others = found.items()
    for split, names in others:
        odd = sorted(set(names) ^ set(classes))
        if odd:
            raise InputError(
                f"{root}: {first} and {split} have not the same classes: {odd[0]} is only in "
                f"{split if odd[0] in names else first}"
            )
    if not classes:
        raise InputError(f"{root}: no class folders in it; expected {root}/train/CLASS/image.jpg")
    for name in classes:
        if not name.isprintable():  # it would be written into configs, checkpoints and models
            raise InputError(f"{root}: the name of the class folder {name!r} is no text; rename it")
    return classes


def find_splits(root: str) -> list[str]:
    """Names of the folders that have folders but no images; training before the others."""
    names = [
        name
        for name in _folders(root)
        if _folders(os.path.join(root, name))
        and not any(map(is_image, os.listdir(os.path.join(root, name))))
    ]
    return sorted(names, key=lambda name: (not name.startswith("train"), name))


def _folders(folder: str) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))


def _images(folder: str) -> list[str]:
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if is_image(name)
    )
