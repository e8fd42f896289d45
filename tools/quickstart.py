#!/usr/bin/env python
"""Train, compress and compare a small detector: what `make demo` runs."""

from sparsedet.cli.main import call

if __name__ == "__main__":
    call("sparsedet", "sparsedet.cli", "quickstart")
