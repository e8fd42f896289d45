#!/usr/bin/env python
"""The same as: sparsedet classify."""

from sparsedet.cli.main import door

if __name__ == "__main__":
    door("classify")
