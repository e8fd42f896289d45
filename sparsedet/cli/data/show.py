"""Draw a contact sheet: a sample of a data set's images with its boxes and their classes."""

from __future__ import annotations

import os

import cv2

from ...data.sheet import contact_sheet
from ...errors import InputError
from ...files import replacing
from ..arguments import positive
from .arguments import chosen, dataset_parser


def main() -> None:
    """The command."""
    parser = dataset_parser(__doc__)
    parser.add_argument("--count", type=positive, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--output", metavar="FILE", required=True, help="a .jpg or .png")
    args = parser.parse_args()
    suffix = os.path.splitext(args.output)[1].lower()
    if suffix not in (".jpg", ".png"):
        raise InputError(f"{args.output}: the picture's name must end in .jpg or .png")
    sources = chosen(parser, args)
    if len(sources) > 1:
        raise InputError(f"{', '.join(sources)}: one sheet shows one of them; name it")
    (source,) = sources.values()
    found = source.read()
    if not found.images:
        raise InputError(f"{found.title}: no image in it can be used")
    sheet = cv2.imencode(suffix, contact_sheet(found, args.count))[1]
    with replacing(args.output) as temporary, open(temporary, "wb") as file:
        file.write(sheet.tobytes())
    print(f"{args.output}: {min(args.count, len(found.images))} of {len(found.images)} images")
