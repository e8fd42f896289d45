#!/usr/bin/env python
"""The same as: sparsedet data voc."""

from sparsedet.cli.main import door

if __name__ == "__main__":
    door("data", "voc")
