"""What the annotations of a split say, whatever their format, and what is wrong with them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detectron2.structures import BoxMode

from ..errors import InputError

BAD_BOX = "bad box"  # one object that cannot be used; its image can
BAD_EXTRA = "bad mask or keypoints"  # of an object whose box can be used
TOLERATED = (BAD_BOX, BAD_EXTRA)
MOST_BAD = 20  # one in so many boxes may be unusable
NAMED = 3  # problems that an error spells out
DROP, STOP = ON_ERROR = ("drop", "stop")


class Problem(NamedTuple):
    """One thing in a dataset that cannot be used; the message begins with its file."""

    kind: str
    message: str


class Object(NamedTuple):
    """One annotated object; `box` is XYXY_ABS, within the image."""

    name: str
    box: list[float]
    extra: dict[str, Any]  # more of detectron2's fields: difficult, iscrowd, area, segmentation


class Image(NamedTuple):
    """One image and its objects."""

    image_id: str | int
    file_name: str
    width: int
    height: int
    objects: list[Object]


@dataclass
class Annotations:
    """One split as its files have it: what can be used, and what cannot."""

    title: str
    classes: list[str] = field(default_factory=list)
    listed: int = 0  # images, also those that cannot be used
    images: list[Image] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # odd, but harmless
    categories: dict[int, str] = field(default_factory=dict)  # COCO: names by id
    keypoints: dict[str, Any] = field(default_factory=dict)  # COCO: the catalog's entries on them

    def boxes(self) -> Counter[str]:
        """Usable ones of each class."""
        return Counter(obj.name for image in self.images for obj in image.objects)

    def stopping(self, on_error: str = DROP) -> list[Problem]:
        """The problems for which loading stops: all, or none."""
        bad = sum(problem.kind == BAD_BOX for problem in self.problems)
        if (
            on_error == STOP
            or any(problem.kind not in TOLERATED for problem in self.problems)
            or bad * MOST_BAD > self.boxes().total() + bad
        ):
            return self.problems
        return []

    def dicts(self, on_error: str = DROP) -> list[dict]:
        """In detectron2's standard format; what is left out is said in one line of the log.

        Returns:
            one dict per image: file_name, image_id, height, width, annotations
            [{category_id, bbox, bbox_mode: XYXY_ABS, ...}].

        Raises:
            InputError: loading stops, see :meth:`stopping`.
        """
        problems = self.stopping(on_error)
        if problems:
            raise InputError(_one_line(problems))
        self._log()
        index = {name: i for i, name in enumerate(self.classes)}
        return [
            {
                "file_name": image.file_name,
                "image_id": image.image_id,
                "height": image.height,
                "width": image.width,
                "annotations": [
                    {
                        "category_id": index[obj.name],
                        "bbox": obj.box,
                        "bbox_mode": BoxMode.XYXY_ABS,
                        **obj.extra,
                    }
                    for obj in image.objects
                ],
            }
            for image in self.images
        ]

    def _log(self) -> None:
        logger = logging.getLogger(__name__)
        for kind, what in ((BAD_BOX, "boxes are"), (BAD_EXTRA, "masks or keypoints are")):
            bad = [problem.message for problem in self.problems if problem.kind == kind]
            if bad:
                total = self.boxes().total() + (len(bad) if kind == BAD_BOX else 0)
                logger.warning(
                    "%s: %d of %d %s left out, as they cannot be used; the first: %s",
                    *(self.title, len(bad), total, what, bad[0]),
                )
        for note in self.notes:
            logger.warning("%s: %s", self.title, note)


def _one_line(problems: list[Problem]) -> str:
    # What stops by itself comes before boxes that only were too many.
    problems = sorted(problems, key=lambda problem: problem.kind in TOLERATED)
    line = "; ".join(" ".join(problem.message.split()) for problem in problems[:NAMED])
    if len(problems) > NAMED:
        kinds = Counter(problem.kind for problem in problems)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        line += f"; and {len(problems) - NAMED} more (in all: {counts})"
    if all(problem.kind == "unknown class" for problem in problems):
        return line
    return f"{line}. `sparsedet data check` lists all, `sparsedet data fix` writes a mended copy"
