"""Write data sets anew as VOC, COCO or YOLO: annotations as they were read, images linked."""

from __future__ import annotations

from ...data.convert import FORMS, convert
from ...errors import InputError
from .arguments import chosen, dataset_parser, part_name


def main() -> None:
    """The command."""
    parser = dataset_parser(__doc__)
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--output", metavar="DIR", required=True, help="a new folder")
    args = parser.parse_args()
    sources = chosen(parser, args)
    parts = {}
    for name, source in sources.items():
        found = source.read()
        found.dicts(source.on_error)  # stops, or says what is left out
        if parts.setdefault(part_name(name, source), found) is not found:
            raise InputError(f"{name}: another data set is {part_name(name, source)} already")
    for line in convert(parts, args.to, args.output):
        print(f"note: {line}")
    counts = (f"{len(found.images)} images in {name}" for name, found in parts.items())
    print(f"{args.output}: {', '.join(counts)}")
