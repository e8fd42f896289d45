"""What is missing or broken in a dataset: every annotation read, every image decoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tqdm import tqdm

from ..errors import InputError
from .mapper import check_image
from .records import DROP, TOLERATED, Annotations, Problem

SHOWN = 5  # problems of one kind that a report spells out


@dataclass
class SplitCheck:
    """Counts of one split, and what is wrong with it."""

    title: str
    images: int = 0  # that the split lists
    boxes: Counter[str] = field(default_factory=Counter)  # class name -> usable boxes
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # odd, but harmless
    stops: bool = False  # whether it cannot be loaded, or an image of it not be read

    def __str__(self) -> str:
        verdict = "nothing missing or broken"
        if self.problems:
            verdict = f"{len(self.problems)} problems"
            verdict += "" if self.stops else ", which loading leaves out"
        lines = [f"{self.title}: {self.images} images, {sum(self.boxes.values())} boxes; {verdict}"]
        if self.boxes:
            counts = (f"{name} {count}" for name, count in sorted(self.boxes.items()))
            lines.append(f"  boxes of {len(self.boxes)} classes: {', '.join(counts)}")
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            lines.append(f"  {kind}: {count}")
            messages = [problem.message for problem in self.problems if problem.kind == kind]
            lines += [f"    {message}" for message in messages[:SHOWN]]
            lines += ["    ..."] if count > SHOWN else []
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_split(
    title: str,
    read: Callable[[], Annotations],
    on_error: str = DROP,
    expected_images: int | None = None,
) -> SplitCheck:
    """Check what `read` finds, by the rules of loading, and decode its images.

    Args:
        expected_images: how many the split should list, where that is known.
    """
    check = SplitCheck(title)
    try:
        found = read()
    except InputError as error:
        check.problems.append(Problem("unusable", str(error)))
        check.stops = True
        return check
    check.images, check.boxes = found.listed, found.boxes()
    check.problems += found.problems
    check.notes += found.notes
    if expected_images is not None and found.listed != expected_images:
        message = f"{title}: lists {found.listed} images, the official one {expected_images}"
        check.problems.append(Problem("incomplete", message))
    if not any(not obj.extra.get("iscrowd") for image in found.images for obj in image.objects):
        check.notes.append("no object in it but crowds, so nothing to train on")
    told = {problem.message.partition(": ")[0] for problem in found.problems}
    images = [image for image in found.images if image.file_name not in told]
    check.problems += _undecodable(title, images)
    check.stops = bool(found.stopping(on_error)) or any(
        problem.kind not in TOLERATED for problem in check.problems
    )
    return check


def print_checks(checks: Iterable[SplitCheck], title: str) -> None:
    """Print each as it comes; raise InputError if one of them stops."""
    problems = 0
    for check in checks:
        print(check)
        problems += len(check.problems) if check.stops else 0
    if problems:
        raise InputError(f"{title}: {problems} problems, listed above")


def _undecodable(title: str, images: list) -> list[Problem]:
    def problem(image) -> Problem | None:
        try:
            check_image(
                {"file_name": image.file_name, "width": image.width, "height": image.height}
            )
        except InputError as error:
            kind = "bad image" if os.path.isfile(image.file_name) else "missing image"
            return Problem(kind, str(error))
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(problem, images), desc=title, total=len(images))
        return [problem for problem in found if problem]
