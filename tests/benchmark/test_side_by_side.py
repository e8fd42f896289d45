"""Stages, bounds, memory, and rows of a benchmark side by side."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from PIL import Image

from sparsedet.benchmark import machine, stages
from sparsedet.benchmark.counting import count_multiply_adds
from sparsedet.benchmark.machine import Machine, measure_machine
from sparsedet.benchmark.memory import peak_rss_mb
from sparsedet.benchmark.side_by_side import Case, benchmark
from sparsedet.benchmark.stages import STAGES, fix_proposals, stage_bounds, time_stages
from sparsedet.errors import InputError
from sparsedet.layers import SparseFusionConv2d
from sparsedet.reports.benchmark import benchmark_table, plot_benchmark, speedups


@BACKBONE_REGISTRY.register()
class DenseAndSparse(Backbone):
    """3 to 8 channels at stride 4, then a sparse fusion to 16."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.first = Conv2d(3, 8, 3, stride=4, padding=1)
        self.second = SparseFusionConv2d(8, 16, 3, padding=1, pattern="rows", ranks=(2, 3))

    def forward(self, x):
        return {"last": self.second(self.first(x).relu()).relu()}

    def output_shape(self):
        return {"last": ShapeSpec(channels=16, stride=4)}


def _model(heads="StandardROIHeads"):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "DenseAndSparse"
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["last"]
    cfg.MODEL.ROI_HEADS.NAME = heads
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 3
    torch.manual_seed(0)
    return build_model(cfg).eval()


def _call(model, height=48, width=64, batch=1):
    inputs = [{"image": torch.zeros(3, height, width)} for _ in range(batch)]
    return lambda: model(inputs)


@torch.no_grad()
def test_each_stage_has_its_time_and_nothing_is_left_out(monkeypatch):
    """On a clock that the parts of the model move, by so many seconds each."""
    model = _model()
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stages, "now", lambda: clock.now)

    def takes(seconds):
        def move(*args):
            clock.now += seconds

        return move

    for part, seconds in (
        ("backbone.first", 1),
        ("backbone.second", 2),
        ("proposal_generator.rpn_head.conv", 4),
        ("proposal_generator.anchor_generator", 8),
        ("roi_heads.box_pooler.level_poolers.0", 16),
        ("roi_heads.box_head.fc1", 32),
        ("roi_heads.box_predictor.cls_score", 64),
    ):
        model.get_submodule(part).register_forward_hook(takes(seconds))

    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    registered = hooks()
    before, call, after = takes(128), _call(model), takes(256)
    times = time_stages(model, lambda: (before(), call(), after()))
    assert tuple(times) == STAGES
    assert times == dict(zip(STAGES, (128e3, 3e3, 4e3, 8e3, 16e3, 96e3, 256e3)))
    assert hooks() == registered


@torch.no_grad()
def test_the_roi_heads_get_exactly_the_boxes_asked_for():
    model = _model()
    counts = []
    model.roi_heads.box_pooler.register_forward_pre_hook(
        lambda module, args: counts.append([len(boxes) for boxes in args[1]])
    )
    fix_proposals(model, 77, 48, 64)
    _call(model, batch=2)()
    assert counts == [[77, 77]]


@torch.no_grad()
def test_bounds_are_those_of_the_slower_of_arithmetic_and_memory():
    model = _model()
    fix_proposals(model, 7, 48, 64)
    cells, anchors, classes = 12 * 16, 15, 80
    # Multiply-adds as counted elsewhere, where moving is free.
    counts = count_multiply_adds(model, 48, 64, 7)
    bounds = stage_bounds(model, _call(model), Machine(1e6, 1e99))
    assert bounds == pytest.approx({stage: n / 1e3 for stage, n in counts.items()})
    # Input, output and parameters of each layer, where arithmetic is free.
    bounds = stage_bounds(model, _call(model), Machine(1e99, 1e6), value_bytes=2)
    fusion = 8 * (2 * 6 + 3 * 3) + (2 + 3 + 1) * 16
    backbone = 3 * 48 * 64 + 8 * cells + 3 * 9 * 8 + 8 + 8 * cells + 16 * cells + fusion
    assert bounds["backbone"] == pytest.approx(2 * backbone / 1e3)
    outputs = 5 * anchors
    rpn_head = 32 * cells + 16 * (9 * 16 + 1) + (32 + outputs) * cells + 17 * outputs
    assert bounds["rpn_head"] == pytest.approx(2 * rpn_head / 1e3)
    outputs = 5 * classes + 1
    box_head = 7 * (144 + 32 + 32 + 32 + 64 + outputs) + 145 * 32 + 33 * 32 + 33 * outputs
    assert bounds["box_head"] == pytest.approx(2 * box_head / 1e3)


def test_machine_rates_are_finite(monkeypatch):
    monkeypatch.setattr(machine, "SIZE", 64)
    monkeypatch.setattr(machine, "BYTES", 2**16)
    rates = measure_machine()
    assert 0 < rates.multiply_adds_per_second < 1e16
    assert 0 < rates.bytes_per_second < 1e16
    assert "GB/s" in str(rates)


def test_peak_memory_is_that_of_the_script_alone():
    held = np.ones(300_000_000, np.uint8)  # this process holds it, the script does not
    nothing = peak_rss_mb("")
    some = peak_rss_mb("import sys; x = b'1' * int(sys.argv[1]); del x", "100000000")
    assert nothing < 100
    assert 95 < some - nothing < 110
    assert held[-1] == 1


def test_a_script_that_fails_says_why_in_one_line():
    with pytest.raises(InputError, match="failed: ZeroDivisionError: division by zero$") as error:
        peak_rss_mb("1 / 0")
    assert "\n" not in str(error.value)


KEYS = (
    "config engine precision height width proposals batch threads ms_median ms_p10 ms_p90 "
    "params multiply_adds file_bytes peak_rss_mb load_ms stages"
).split()


def _rows(calls=None):
    def run(name):
        return lambda images: (calls is not None and calls.append(name)) or len(images)

    def stages(images):
        return {stage: 1.0 + i for i, stage in enumerate(STAGES)}

    size = {"params": 4_000_000, "multiply_adds": 2_500_000_000,
            "file_bytes": 16_000_000, "peak_rss_mb": 321.4}  # fmt: skip
    engines = [
        Case("dense", "eager", "f32", run("A"), **size, time_stages=stages),
        Case("sparse", "eager", "f32", run("B"), **size, time_stages=stages,
               bounds={"backbone": 0.5}),
        Case("sparse", "onnxruntime", "int8", run("C"), **size, load_ms=12.3),
    ]  # fmt: skip
    images = [np.zeros((48, 64, 3), np.uint8)] * 2
    rows = benchmark(engines, images, proposals=9, rounds=3)
    for row, ms in zip(rows, (300.0, 100.0, 50.0)):
        row.update(ms_median=ms, ms_p10=ms - 5, ms_p90=ms + 10)
    return rows


def test_rows():
    calls = []
    rows = _rows(calls)
    assert calls == ["A", "B", "C"] * 5  # two rounds to warm up
    assert all(list(row) == KEYS for row in rows)
    assert [row["engine"] for row in rows] == ["eager", "eager", "onnxruntime"]
    row = rows[1]
    assert (row["height"], row["width"], row["batch"], row["proposals"]) == (48, 64, 2, 9)
    assert row["threads"] == torch.get_num_threads()
    assert row["stages"]["backbone"] == {"ms": 2.0, "bound_ms": 0.5}
    assert row["stages"]["preprocess"] == {"ms": 1.0, "bound_ms": None}
    assert rows[2]["stages"] == {}


def test_ratios_are_between_equal_engines():
    rows = _rows()
    assert speedups(rows, "dense") == [None, 3.0, None]
    assert speedups(rows, "sparse") == [pytest.approx(1 / 3), None, None]


def test_ratios_are_within_a_setting():
    rows = _rows()[:2]
    slower = [{**row, "proposals": 99, "ms_median": 2 * row["ms_median"]} for row in rows]
    slower[1]["ms_median"] = 150.0
    assert speedups(rows + slower, "dense") == [None, 3.0, None, 4.0]


def test_tables():
    whole, stages = benchmark_table(_rows(), "dense").split("\n\n")
    _, _, dense, sparse, exported = whole.splitlines()
    assert [cell.strip() for cell in sparse.split("|")[1:-1]] == [
        "sparse", "eager f32", "100.0 (3.00x)", "95.0 to 110.0", "4.00 M", "2.50 G", "16.0", "321",
        "",
    ]  # fmt: skip
    assert "300.0 |" in dense and "50.0 |" in exported and exported.endswith(" 12 |")
    assert len(stages.splitlines()) == 4
    assert "| 2.0 (0.5) |" in stages.replace("  ", " ")
    assert "x)" not in benchmark_table(_rows())


@pytest.mark.parametrize(
    "heading, change, cells",
    [
        ("size", {"height": 96, "width": 128}, ["48x64", "96x128"]),
        ("proposals", {"proposals": 50}, ["9", "50"]),
        ("batch", {"batch": 8}, ["2", "8"]),
        ("threads", {"threads": 64}, None),
    ],
)
def test_tables_and_lines_of_what_varies(heading, change, cells, tmp_path):
    rows = _rows()
    rows += [{**row, **change} for row in rows]
    for table in benchmark_table(rows).split("\n\n"):
        lines = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()]
        assert lines[0][1:3] == ["engine", heading]
        seen = list(dict.fromkeys(line[2] for line in lines[2:]))
        assert seen == (cells or [str(rows[0]["threads"]), "64"])
    plot_benchmark(rows, str(tmp_path / "lines.png"))
    assert Image.open(tmp_path / "lines.png").size == (1200, 750)


def test_plot(tmp_path):
    plot_benchmark(_rows(), str(tmp_path / "plot.png"))
    plot_benchmark(_rows()[2:], str(tmp_path / "plain.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"plot.png", "plain.png"}
    assert Image.open(tmp_path / "plot.png").size == (1200, 435)
