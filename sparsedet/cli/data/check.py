"""Say what is missing or broken in data sets: every annotation read, every image decoded.

The exit status is 0 where training would load them and read all their images. Boxes that loading
leaves out are listed, too; more than one in twenty, or `on_error: stop`, are an error.
"""

from __future__ import annotations

from ...data.check import check_split, print_checks
from .arguments import chosen, dataset_parser


def main() -> None:
    """The command."""
    parser = dataset_parser(__doc__)
    sources = chosen(parser, parser.parse_args())
    print_checks(
        (check_split(name, source.read, source.on_error) for name, source in sources.items()),
        ", ".join(sources),
    )
