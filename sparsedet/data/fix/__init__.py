"""A mended copy of a data set: its annotations by the rules of loading, its images linked.

A box that is inverted is put in order, one that leaves its image a little is clipped, any other
that cannot be used is left out, and so is a file without its counterpart; an image size that is
none is taken from the image. What only its owner can know, such as an unknown class, stays.
"""

from __future__ import annotations

from collections import Counter

from ...errors import InputError
from ...files import new_folder
from ..sources import CocoSource, Source, VocSource, YoloSource
from .coco import fix_coco
from .voc import fix_voc
from .yolo import fix_yolo


def fix(source: Source, output: str) -> Counter[str]:
    """Write the copy, of all splits that lie in the same folder.

    Returns:
        what was done, and how often.

    Raises:
        InputError: there is something at `output` already, or the source cannot be read at all.
    """
    with new_folder(output) as folder:
        if isinstance(source, VocSource):
            return fix_voc(source.root, folder)
        if isinstance(source, YoloSource):
            return fix_yolo(source.root, folder)
        if isinstance(source, CocoSource):
            return fix_coco(source.json, source.images, folder)
    raise InputError(f"{source.name}: of a kind that cannot be mended")
