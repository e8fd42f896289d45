"""Pickles read as data: nothing in one is run."""
