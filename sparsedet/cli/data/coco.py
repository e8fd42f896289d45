"""Put the official COCO 2017 where detectron2 expects it, or check it.

sparsedet data coco --from DIR    unpack the zips that are in DIR
sparsedet data coco --check       say what is missing or broken
sparsedet data coco --check --json FILE --images DIR
                                  the same for any COCO json
"""

from __future__ import annotations

import argparse

from ...data.archives import install_archives
from ...data.check import SplitCheck, check_split, print_checks
from ...data.coco import read_coco
from ...data.entries import locate

ARCHIVES = ("annotations_trainval2017.zip", "train2017.zip", "val2017.zip")
PAGE = "https://cocodataset.org/#download"
OFFICIAL = (("train2017", 118287), ("val2017", 5000))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", metavar="DIR", help="folder with official zips")
    parser.add_argument("--check", action="store_true", help="read and decode everything")
    parser.add_argument("--json", metavar="FILE", help="check this instead of the official ones")
    parser.add_argument("--images", metavar="DIR", help="folder of the images of --json")
    args = parser.parse_args()
    if not (args.source or args.check):
        parser.error("nothing to do: give --from DIR, --check, or both")
    if bool(args.json) != bool(args.images):
        parser.error("--json and --images go together")

    if args.source:
        install_archives(args.source, ARCHIVES, PAGE, "", locate("coco"))
    if args.check:
        check(args)


def check(args: argparse.Namespace) -> None:
    if args.json:
        print_checks([_check(args.json, args.images)], args.json)
        return
    checks = (
        _check(locate(f"coco/annotations/instances_{split}.json"), locate(f"coco/{split}"), count)
        for split, count in OFFICIAL
    )
    print_checks(checks, locate("coco"))


def _check(json_file: str, images: str, count: int | None = None) -> SplitCheck:
    return check_split(json_file, lambda: read_coco(json_file, images), expected_images=count)
