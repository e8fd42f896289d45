#!/usr/bin/env python
"""The same as: sparsedet export."""

from sparsedet.cli.main import door

if __name__ == "__main__":
    door("export")
