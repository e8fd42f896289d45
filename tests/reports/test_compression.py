"""The report of a compression."""

from dataclasses import replace

import pytest
from PIL import Image
from torch import nn

from sparsedet.compress import LayerPlan, LayerResult, Result, Task
from sparsedet.reports.compression import write_report
from sparsedet.timing import environment

LAYERS = {
    "backbone.conv1_1": LayerResult(
        LayerPlan((12, 8), "checkerboard"), (1728, 560), 143360.0, 0.00213, 0.0171, 4096
    ),
    "box_head.fc6": LayerResult(
        LayerPlan((96,)), (102760448, 2801664), 300.0, 0.12, 1.7, 2048, "held to its dense weights"
    ),
    "mask_head.conv": LayerResult(LayerPlan((64, 64), "rows"), (589824, 180224), note="not called"),
}
MODEL = nn.Module(), Task([None])
RESULT = Result(LAYERS, (137060000, 11050000), (42.3e9, 10.575e9), *MODEL)
TOTALS = [
    "| parameters    | 137.06 M | 11.05 M |   12.4x |",
    "| multiply-adds |  42.30 G | 10.57 G |    4.0x |",
]


def _cells(folder):
    """The cells of every table row in a report, without its rulers."""
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"]
    return [row for row in rows if not row[0].startswith(":--")]


def test_tables(tmp_path):
    write_report(RESULT, str(tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.splitlines()[4:6] == TOTALS
    assert _cells(tmp_path)[3:] == [
        ["layer", "becomes", "weights", "multiply-adds",
         "error", "of weights alone", "samples", "note"],
        ["backbone.conv1_1", "checkerboard 12 + 8", "1.73 k → 560", "247.73 M → 80.28 M",
         "0.0021", "0.0171", "4096", ""],
        ["box_head.fc6", "rank 96", "102.76 M → 2.80 M", "30.83 G → 840.50 M",
         "0.1200", "1.7000", "2048", "held to its dense weights"],
        ["mask_head.conv", "rows 64 + 64", "589.82 k → 180.22 k", "0 → 0",
         "n/a", "n/a", "0", "not called"],
    ]  # fmt: skip
    assert "](layers.png)" in text and "Times" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.png", "report.md"]


def test_measured_times(tmp_path):
    times = {"backbone.conv1_1": (0.4567, 0.5), "box_head.fc6": (1234.5, 16)}
    layers = {name: replace(LAYERS[name], milliseconds=times.get(name)) for name in LAYERS}
    write_report(replace(RESULT, layers=layers, milliseconds=(1400.0, 466.6667)), str(tmp_path))
    totals, layers = _cells(tmp_path)[:4], _cells(tmp_path)[4:]
    assert totals[3] == ["ms", "1400.00", "466.67", "3.0x"]
    ms = [row[4] for row in layers]
    assert ms == ["ms", "0.46 → 0.50", "1234.50 → 16.00", "n/a"]
    processor = environment()["cpu"]
    assert f"cpu {processor}" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_nothing_was_compressed(tmp_path):
    write_report(Result({}, (10, 10), (0.0, 0.0), *MODEL), str(tmp_path))
    assert _cells(tmp_path)[1:] == [
        ["parameters", "10", "10", "1.0x"],
        ["multiply-adds", "0", "0", "n/a"],
    ]
    assert not (tmp_path / "layers.png").exists()


@pytest.mark.parametrize("count, height", [(4, 348), (40, 1860)])
def test_the_plot_grows_with_the_layers(count, height, tmp_path):
    layers = {f"layer{i}": list(LAYERS.values())[i % 3] for i in range(count)}
    layers["layer0"] = replace(layers["layer0"], milliseconds=(2.0, 1.0))
    write_report(Result(layers, (2, 1), (2.0, 1.0), *MODEL), str(tmp_path))
    assert Image.open(tmp_path / "layers.png").size == (1650, height)
