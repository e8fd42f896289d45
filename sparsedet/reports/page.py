"""What a compression did, on one page of HTML that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Collection, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..files import replacing
from .compression import LEGEND, PLOT, layer_rows, times, total_rows

if TYPE_CHECKING:
    from ..compress.result import Result

PAGE = "report.html"
STEPS = "<!-- steps -->", "<!-- end of steps -->"
"""What :func:`show_steps` writes stands between these."""

PICTURES = "What each finds in images of the calibration, where its score is above 0.5."

# Names of layers and classes are other people's text: all text on the page goes through escape().
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Compression</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto;
  padding: 0 1em; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 3px 12px; border-bottom: 1px solid #e5e5e5; text-align: right;
  white-space: nowrap; }}
th {{ border-bottom-color: #4c566a; font-weight: 600; }}
.left {{ text-align: left; }}
img {{ max-width: 100%; display: block; }}
.pictures {{ display: grid; gap: 1em;
  grid-template-columns: repeat(auto-fit, minmax(450px, 1fr)); }}
.note {{ color: #666; font-size: 13px; max-width: 75ch; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_page(result: Result, folder: str) -> None:
    """Write ``report.html``: the tables of ``report.md``, its plot, and what the models find.

    Args:
        result: of a compression.
        folder: an existing one, which has ``layers.png`` where any layer is compressed.
    """
    parts = ["<h1>Compression</h1>", html_table(*total_rows(result))]
    parts += [f"<p>{escape(note)}</p>" for note in result.notes]
    parts.append("".join(STEPS))
    if result.pictures:
        parts.append(f'<h2>Dense beside compact</h2>\n<p class="note">{PICTURES}</p>')
        images = (_image(_jpeg(picture), "jpeg") for picture in result.pictures)
        parts.append(f'<div class="pictures">{"".join(images)}</div>')
    if result.layers:
        headings, rows = layer_rows(result)
        parts += [
            "<h2>Layer by layer</h2>",
            _image(Path(folder, PLOT).read_bytes(), "png"),
            html_table(headings, rows, left=[0, 1, len(headings) - 1]),
            f'<p class="note">{escape(LEGEND)}</p>',
        ]
    if line := times(result):
        parts.append(f'<p class="note">{escape(line)}</p>')
    _write(os.path.join(folder, PAGE), TEMPLATE.format(body="\n".join(parts)))


def show_steps(path: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Show the steps of a search on a page that :func:`write_page` wrote."""
    page = Path(path).read_text(encoding="utf-8")
    before, _, rest = page.partition(STEPS[0])
    _, _, after = rest.partition(STEPS[1])
    table = f"\n<h2>Steps of the search</h2>\n{html_table(headings, rows)}\n"
    _write(path, f"{before}{STEPS[0]}{table}{STEPS[1]}{after}")


def html_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Cells of plain text in a table, the columns ``left`` aligned there."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = [' class="left"' if i in left else "" for i in range(len(cells))]
        inside = (f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells))
        return f"<tr>{''.join(inside)}</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>\n{line(headings, "th")}\n{body}\n</table></div>'


def _image(data: bytes, kind: str) -> str:
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _jpeg(picture: np.ndarray) -> bytes:
    """Of (H, W, 3) uint8, BGR."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).save(file, "JPEG", quality=85)
    return file.getvalue()


def _write(path: str, text: str) -> None:
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
