"""What is missing or broken in a dataset: every annotation read, every image decoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tqdm import tqdm

from ..errors import InputError
from .coco import read_coco
from .mapper import check_image
from .voc import OVERSHOOT, Problem, read_split

SHOWN = 5  # problems of one kind that a report spells out


@dataclass
class Report:
    """Counts of one split, and what is wrong with it."""

    title: str
    images: int = 0  # that the split lists
    annotations: int = 0  # VOC: annotation files; COCO: entries. That can be used.
    boxes: Counter = field(default_factory=Counter)  # class name -> usable boxes
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # odd, but harmless

    def __str__(self) -> str:
        lines = [
            f"{self.title}: {self.images} images, {self.annotations} annotations, "
            f"{sum(self.boxes.values())} boxes; "
            + (f"{len(self.problems)} problems" if self.problems else "nothing missing or broken")
        ]
        if self.boxes:
            counts = (f"{name} {count}" for name, count in sorted(self.boxes.items()))
            lines.append(f"  boxes of {len(self.boxes)} classes: {', '.join(counts)}")
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            lines.append(f"  {kind}: {count}")
            messages = [problem.message for problem in self.problems if problem.kind == kind]
            lines += [f"    {message}" for message in messages[:SHOWN]]
            lines += ["    ..."] if count > SHOWN else []
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_voc(
    root: str, split: str, classes: Sequence[str] | None = None, expected_images: int | None = None
) -> Report:
    """Check one split of a VOC-style folder.

    Args:
        classes: the only ones allowed; None allows any.
        expected_images: how many the split should list, where that is known.
    """
    report = Report(f"{root} {split}")
    try:
        images, report.problems = read_split(root, split, classes)
    except InputError as error:
        report.problems.append(Problem("missing", str(error)))
        return report
    report.images = len(images) + len(report.problems)
    report.annotations = len(images)
    report.annotations += sum(problem.kind == "missing image" for problem in report.problems)
    for _, _, image in images:
        report.boxes.update(obj.name for obj in image.objects)
    _check_count(report, expected_images)
    _check_images(
        report,
        [
            {"file_name": file_name, "width": image.width, "height": image.height}
            for _, file_name, image in images
        ],
    )
    return report


def check_coco(json_file: str, image_root: str, expected_images: int | None = None) -> Report:
    """Check a COCO json and its images; `expected_images` where the number is known."""
    report = Report(json_file)
    try:
        content = read_coco(json_file)
        if not os.path.isdir(image_root):
            raise InputError(f"{image_root}: no such image folder")
    except InputError as error:
        report.problems.append(Problem("missing", str(error)))
        return report
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    report.images = len(images)
    empty = 0
    for number, annotation in enumerate(content.get("annotations") or ()):
        try:
            image = images[annotation["image_id"]]
            name = names[annotation["category_id"]]
            x, y, width, height = map(float, annotation["bbox"])
            inside = (
                min(x, y) >= -OVERSHOOT
                and x + width <= image["width"] + OVERSHOOT
                and y + height <= image["height"] + OVERSHOOT
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            message = f"{json_file}: annotations[{number}] does not fit: {reason}"
            report.problems.append(Problem("bad annotation", message))
            continue
        if not inside or width < 0 or height < 0:
            message = (
                f"{json_file}: annotations[{number}] has the box {annotation['bbox']}, which is "
                f"not within its image of {image['width']}x{image['height']}"
            )
            report.problems.append(Problem("bad annotation", message))
            continue
        report.annotations += 1
        if width == 0 or height == 0:
            empty += 1
        else:
            report.boxes[name] += 1
    if empty:
        # Official COCO has some.
        report.notes.append(f"{empty} boxes are empty; detectron2 drops them in training")
    _check_count(report, expected_images)
    _check_images(
        report,
        [
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "width": image["width"],
                "height": image["height"],
            }
            for image in images.values()
        ],
    )
    return report


def print_reports(reports: Iterable[Report], title: str) -> None:
    """Print each as it comes; raise InputError if any of them has a problem."""
    problems = 0
    for report in reports:
        print(report)
        problems += len(report.problems)
    if problems:
        raise InputError(f"{title}: {problems} problems, listed above")


def _check_count(report: Report, expected: int | None) -> None:
    if expected is not None and report.images != expected:
        message = f"{report.title}: lists {report.images} images, the official one {expected}"
        report.problems.append(Problem("incomplete", message))


def _check_images(report: Report, images: list[dict]) -> None:
    def problem(image: dict) -> Problem | None:
        try:
            check_image(image)
        except InputError as error:
            kind = "bad image" if os.path.isfile(image["file_name"]) else "missing image"
            return Problem(kind, str(error))
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(problem, images), desc=report.title, total=len(images))
        report.problems += filter(None, found)
