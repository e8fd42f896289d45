"""Write a mended copy of a data set: its annotations only, images are linked.

Boxes that are inverted are put in order, those that leave their image a little are clipped, others
that cannot be used are left out, and so are files without their counterpart.
"""

from __future__ import annotations

from ...data.fix import fix
from ...errors import InputError
from .arguments import chosen, dataset_parser


def main() -> None:
    """The command."""
    parser = dataset_parser(__doc__)
    parser.add_argument("--output", metavar="DIR", required=True, help="a new folder")
    args = parser.parse_args()
    source, *others = chosen(parser, args).values()
    if any(other.places() != source.places() for other in others):
        raise InputError(f"{source.name}, {others[-1].name}: of different folders; name one")
    done = fix(source, args.output)
    for what, count in done.items():
        if count:
            print(f"{count} {what}")
    print(f"{args.output}: {'written' if done.total() else 'nothing was wrong; a copy'}")
