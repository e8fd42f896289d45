"""The page of a compression: what the result says, and nothing from elsewhere."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from torch import nn

from sparsedet.compress import LayerPlan, LayerResult, Result, Task
from sparsedet.reports.compression import layer_rows, total_rows, write_report
from sparsedet.reports.page import PAGE, show_steps, write_page

NAME = "<script>alert('&')</script>"
LAYERS = {
    NAME: LayerResult(
        LayerPlan((12, 8), "checkerboard"), (1728, 560), 143360.0, 0.00213, 0.0171, 4096,
        "a <b>note</b>", (12.0, 3.0),
    ),
    "fc6": LayerResult(LayerPlan((96,)), (102760448, 2801664), 300.0, milliseconds=(30.0, 2.5)),
}  # fmt: skip
RESULT = Result(
    LAYERS, (137060000, 11050000), (42.3e9, 10.575e9), nn.Module(), Task([None]),
    milliseconds=(100.0, 60.0), rest_milliseconds=58.0, engine="openvino bf16", notes=["1 < 2"],
    pictures=[np.full((40, 60, 3), (250, 10, 20), np.uint8)],
)  # fmt: skip


class _Page(HTMLParser):
    """Rows of all tables, sources of all images, names of all tags, and the text."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.tags, self.text, self.cell = [], [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data


def _page(result, folder):
    write_report(result, str(folder))
    write_page(result, str(folder))
    return _Page((folder / PAGE).read_text(encoding="utf-8"))


def _decoded(source):
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(\S+)", source).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    assert image.format.lower() == kind
    return image


def test_the_numbers_of_the_result_and_names_as_they_are(tmp_path):
    page = _page(RESULT, tmp_path)
    expected = [*total_rows(RESULT)[1], *layer_rows(RESULT)[1]]
    found = [row for row in page.rows if row[0] not in ("", "layer")]
    assert found == [list(row) for row in expected]
    assert ["parameters", "137.06 M", "11.05 M", "12.4x"] in found
    assert ["ms", "100.00", "60.00", "1.7x"] in found
    [hostile] = [row for row in found if row[0] == NAME]
    assert hostile[-1] == "a <b>note</b>" and "12.00 → 3.00" in hostile
    assert not {"script", "b", "link", "a"} & set(page.tags)
    assert "1 < 2" in page.text
    assert "medians in openvino bf16" in page.text and "63.50 ms were predicted" in page.text


def test_the_page_stands_alone(tmp_path):
    page = _page(RESULT, tmp_path)
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|url\(|@import|<script", re.sub(r"base64,[^\"]+", "", text))
    picture, plot = map(_decoded, page.images)
    assert picture.size == (60, 40)
    assert np.abs(np.asarray(picture)[20, 30] - np.array([20, 10, 250])).max() < 8
    assert plot.size == Image.open(tmp_path / "layers.png").size


def test_nothing_was_compressed_and_nothing_was_timed(tmp_path):
    bare = Result({}, (10, 10), (0.0, 0.0), nn.Module(), Task([None]))
    page = _page(bare, tmp_path)
    assert page.images == [] and "medians" not in page.text
    assert [row[0] for row in page.rows[1:]] == ["parameters", "multiply-adds"]


def test_steps_of_a_search_are_shown_and_replaced(tmp_path):
    _page(replace(RESULT, pictures=[]), tmp_path)
    before = (tmp_path / PAGE).read_text(encoding="utf-8")
    heads = ["planned for", "AP50"]
    for rows in ([["dense", "50"]], [["dense", "50"], ["2.00x", "<49>"]]):
        show_steps(str(tmp_path / PAGE), heads, rows)
        page = _Page((tmp_path / PAGE).read_text(encoding="utf-8"))
        start = page.rows.index(heads)
        assert page.rows[start + 1 : start + 1 + len(rows)] == rows
        assert page.text.count("Steps of the search") == 1
    assert len(page.rows) == len(_Page(before).rows) + 3


def test_a_prediction_takes_the_time_of_the_rest():
    assert RESULT.predicted_milliseconds == 58 + 3 + 2.5
    assert replace(RESULT, rest_milliseconds=None).predicted_milliseconds is None
