"""Which image an XML file of VOC's form is about."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import NamedTuple

from ..errors import InputError
from ..images import IMAGE_SUFFIXES


class Entry(NamedTuple):
    """One annotation file, and the folder in which its image is."""

    image_id: str
    xml: str
    images: str


def is_image(name: str) -> bool:
    """By its suffix; macOS's ._ID.jpg are none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


class ImageFolders:
    """What is in the folders of images, each read once."""

    def __init__(self) -> None:
        self._stems: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> names

    def find(self, entry: Entry, filename: str) -> str | None:
        """The image of an annotation: as it names it, or else of its own name.

        Raises:
            InputError: these are two, or there is more than one of its own name.
        """
        stems = self._folder(entry.images)
        own = stems.get(os.path.basename(entry.image_id), [])
        stem = os.path.splitext(filename)[0]
        if filename in stems.get(stem, []):
            if own and filename not in own:
                raise InputError(
                    f"{entry.xml}: <filename> is {filename}, but {own[0]} is there as well; "
                    f"correct the one or remove the other"
                )
            return os.path.join(entry.images, filename)
        if len(own) > 1:
            raise InputError(
                f"{entry.xml}: {' and '.join(own)} are both there; name one in <filename>"
            )
        return os.path.join(entry.images, own[0]) if own else None

    def unused(self, used: dict[str, str]) -> list[str]:
        """One line on images that have no annotation, where there are any."""
        all_images = [
            os.path.join(folder, name)
            for folder, stems in self._stems.items()
            for name in sorted(sum(stems.values(), []))
        ]
        left = [image for image in all_images if image not in used]
        if not left:
            return []
        return [f"{len(left)} images have no annotation and are left out; the first: {left[0]}"]

    def _folder(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._stems:
            stems = self._stems[folder] = defaultdict(list)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                if is_image(name):
                    stems[os.path.splitext(name)[0]].append(name)
        return self._stems[folder]
