"""python -m fuzz: many cases for every reader, as many readers at once as there are processors.

Run by ``make fuzz``. Prints a table of counts; what failed is told below it, and its file is kept.
"""

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

from .drive import Worker, available, fuzz
from .readers import READERS

ENDS = ("result", "refused", "exception", "two lines", "hang", "growth", "death", "code run")


def alone(name: str, cases: int, keep: Path) -> tuple[Counter, list[str]]:
    """:func:`fuzz` with a process of its own."""
    with closing(Worker()) as worker:
        return fuzz(name, cases, worker, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="for each reader")
    parser.add_argument("--reader", choices=READERS, action="append", help="default: all")
    parser.add_argument("--keep", type=Path, default=Path("output/fuzz"))
    args = parser.parse_args()
    names = [name for name in args.reader or READERS if available(name)]
    print("| reader | " + " | ".join(ENDS) + " |\n|" + "---|" * (len(ENDS) + 1), flush=True)
    failures = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(alone, name, args.cases, args.keep): name for name in names}
        for run in as_completed(runs):  # a row as soon as it is there: the whole takes long
            counts, failed = run.result()
            row = " | ".join(str(counts[end]) for end in ENDS)
            print(f"| {runs[run]} | {row} |", flush=True)
            failures += failed
    print("", *failures, sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
