"""Put the official Pascal VOC 2007 and 2012 where detectron2 expects them, or check them.

sparsedet data voc --from DIR     unpack the tars that are in DIR
sparsedet data voc --check        say what is missing or broken
sparsedet data voc --check --root DIR --split NAME ... --classes NAME ...
                                  the same for any VOC-style folder
"""

from __future__ import annotations

import argparse

from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from ...data.archives import install_archives
from ...data.check import SplitCheck, check_split, print_checks
from ...data.entries import locate
from ...data.sources import VocSource
from ...data.voc_files import find_splits

ARCHIVES = (
    "VOCtrainval_06-Nov-2007.tar",
    "VOCtest_06-Nov-2007.tar",
    "VOCtrainval_11-May-2012.tar",
)
PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ and .../voc2012/ (development kit)"
OFFICIAL = (  # folder, split, images
    ("VOC2007", "trainval", 5011),
    ("VOC2007", "test", 4952),
    ("VOC2012", "trainval", 11540),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", metavar="DIR", help="folder with official tars")
    parser.add_argument("--check", action="store_true", help="read and decode everything")
    parser.add_argument("--root", help="check this VOC-style folder instead of the official ones")
    parser.add_argument("--split", nargs="+", metavar="NAME", help="of --root; else those it has")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of --root; else any")
    args = parser.parse_args()
    if not (args.source or args.check):
        parser.error("nothing to do: give --from DIR, --check, or both")

    if args.source:
        install_archives(args.source, ARCHIVES, PAGE, "VOCdevkit", locate(""))
    if args.check:
        check(args)


def check(args: argparse.Namespace) -> None:
    if args.root:
        splits = args.split or find_splits(args.root) or [None]
        checks = (_check(args.root, split, args.classes or ()) for split in splits)
    else:
        checks = (
            _check(locate(folder), split, CLASS_NAMES, count) for folder, split, count in OFFICIAL
        )
    print_checks(checks, args.root or locate(""))


def _check(root: str, split: str | None, classes, count: int | None = None) -> SplitCheck:
    title = f"{root} {split}" if split else root
    source = VocSource(name=title, root=root, split=split, classes=tuple(classes))
    return check_split(title, source.read, expected_images=count)
