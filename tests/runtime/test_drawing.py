"""The font of labels, which must be there without matplotlib, too."""

import sys

import numpy as np
import pytest
from PIL import Image

from sparsedet.drawing import draw_boxes, label_font


def test_labels_are_in_matplotlibs_font_where_that_is_installed():
    pytest.importorskip("matplotlib")
    font = label_font(Image.new("RGB", (900, 600)))
    assert font.getname() == ("DejaVu Sans", "Book") and font.size == 20


def test_labels_without_matplotlib_are_as_large(monkeypatch):
    with_matplotlib = label_font(Image.new("RGB", (900, 600)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    font = label_font(Image.new("RGB", (900, 600)))
    assert font.getname() != with_matplotlib.getname()
    assert font.getlength("spoon 0.97") == pytest.approx(
        with_matplotlib.getlength("spoon 0.97"), rel=0.25
    )
    image = np.zeros((300, 400, 3), np.uint8)
    drawn = draw_boxes(image, np.float32([[50, 100, 350, 280]]), [0], ["spoon 0.97"])
    assert (drawn[:100] == 255).all(axis=2).sum() > 20  # white letters above the box
