"""Remake the tables of accuracy, a row at a time; the records are in docs/records.

    python tools/evidence.py list
    python tools/evidence.py run bccd-vgg16/dense --seed 1 \\
        --data bccd=FOLDER vgg16=FILE.pth
    python tools/evidence.py run --all --data bccd=FOLDER raccoon=FOLDER vgg16=FILE.pth
    python tools/evidence.py tables
    python tools/evidence.py gallery

`run` first runs what a row needs, does nothing twice in one folder of work, and goes on where it
was stopped. With --all it runs every row that has no record, whole tables soon. `tables` writes
what the records say between the markers in README.md and docs/, and `gallery` draws pictures of
the models that are in the folder of work.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from pathlib import Path

from sparsedet.cli.arguments import positive
from sparsedet.errors import InputError

from .records import FOLDER, read_records
from .studies import ROWS, choose, queue, read_rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the rows, and which were run")
    _run_arguments(commands.add_parser("run", help="run rows"))
    commands.add_parser("tables", help="write the tables from the records")
    _work_argument(commands.add_parser("gallery", help="draw the pictures of docs/gallery.md"))
    args = parser.parse_args()
    {"list": show, "run": run, "tables": tables, "gallery": gallery}[args.command](args)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", metavar="STUDY[/ROW]")
    parser.add_argument("--all", action="store_true", help="every row without a record")
    parser.add_argument("--seed", type=positive, nargs="+", default=[], metavar="N")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="NAME=PATH", help="where a data set is"
    )
    _work_argument(parser)
    parser.add_argument(
        "--rows", type=Path, default=ROWS, metavar="FILE", help="of other studies", dest="file"
    )
    parser.add_argument("--records", type=Path, default=FOLDER, metavar="DIR")


def _work_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("output/evidence"),
        metavar="DIR",
        help="for checkpoints, some gigabytes (default: %(default)s)",
    )


def show(args: argparse.Namespace) -> None:
    """Print every row, with its AP50 if it was run."""
    rows = queue(read_rows())
    records = read_records(rows)
    for row in rows:
        found = f"AP50 {records[row]['numbers']['AP50']:.2f}" if row in records else "not run"
        print(f"{row}: {found}")


def run(args: argparse.Namespace) -> None:
    """Run rows by name, or all that have no record."""
    from .bench import Bench
    from .materials import Materials, parse_places

    rows = read_rows(args.file)
    if args.all == bool(args.rows):
        raise InputError("name rows, or give --all; `python tools/evidence.py list` has the names")
    if args.all:
        known = read_records(queue(rows), args.records)
        chosen = [row for row in queue(rows) if row not in known]
        chosen = [row for row in chosen if not args.seed or row.seed in args.seed]
    else:
        chosen = choose(rows, args.rows, args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    materials = Materials(parse_places(args.data), args.work.absolute())
    logging.basicConfig(filename=args.work / "log.txt", level=logging.INFO)
    with open(args.work / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        failures = Bench(args.work.absolute(), materials, args.records).run(chosen)
    if failures:
        raise InputError(f"{len(failures)} of {len(chosen)} rows were not run; see above")


def tables(args: argparse.Namespace) -> None:
    """Write the tables between their markers."""
    from .tables import write_documents

    for path in write_documents():
        print(f"wrote {path}")


def gallery(args: argparse.Namespace) -> None:
    """Draw what there are models and records for."""
    from .gallery import draw_gallery

    for path in draw_gallery(args.work.absolute()):
        print(f"wrote {path}")
