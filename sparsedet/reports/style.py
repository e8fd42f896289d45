"""How every plot looks, and how it is written."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import replacing

COLORS = ("#4c566a", "#d95f02", "#1b7f79", "#7b4fa3", "#b8860b", "#c2255c")


def tidy(axes: Axes) -> None:
    """No box around the data, a light grid behind it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
