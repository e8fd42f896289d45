"""What is said where a library is missing."""

import sys

import pytest

from sparsedet.errors import InputError
from sparsedet.extras import require


def test_a_library_that_is_there():
    import numpy

    assert require("numpy", "this test") is numpy


@pytest.mark.parametrize(
    "module, message",
    [
        ("openvino", '^this needs openvino: pip install "sparsedet\\[openvino\\]"$'),
        ("flask", '^this needs flask: pip install "sparsedet\\[web\\]"$'),
        ("torch_pruning", '^this needs torch_pruning: pip install "sparsedet\\[prune\\]"$'),
        ("yaml", '^this needs yaml: pip install "sparsedet\\[train\\]"$'),
        ("yacs", "^this needs detectron2: build it from source, or run "),
    ],
)
def test_a_library_that_is_missing(module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=message):
        require(module, "this")


def test_a_library_that_is_there_and_fails(tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(InputError, match="needs openvino, which cannot be imported: libtbb.so.12"):
        require("openvino", "this")
