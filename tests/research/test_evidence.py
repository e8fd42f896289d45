"""tools/evidence.py: rows run once, resumed, recorded; tables are what the records say."""

import json
from pathlib import Path

import pytest
from evidence import plots, tables, training
from evidence.plots import plot_sizes
from evidence.records import SCHEMA, path_of, read_record, read_records, write_record
from evidence.rule import Rule
from evidence.studies import DOINGS, ROOT, queue, read_rows
from PIL import Image

from sparsedet.errors import InputError

ROWS = """
studies:
  small:
    title: Small
    config: {config}
    data: [shapes]
    seeds: [1, 2]
    calibration: 4
    training:
      - opts: {{SOLVER.BASE_LR: 0.001, SOLVER.WARMUP_ITERS: 1}}
        rule: {{every: 2, most: 4, patience: 1, settle: 1}}
    finetuning:
      opts: {{SOLVER.BASE_LR: 0.001, SOLVER.WARMUP_ITERS: 1}}
      rule: {{every: 1, most: 1}}
    rows:
      dense: {{do: train}}
      dense-longer: {{do: finetune, from: dense}}
      compact-12.4x: {{do: compress, from: dense, params: 4}}
      finetuned-12.4x: {{do: finetune, from: compact-12.4x}}
"""


def numbers(ap50, params=100.0):
    return {
        "params": params,
        "multiply_adds": 10 * params,
        "AP": ap50 / 2,
        "AP50": ap50,
        "voc_mAP": ap50 + 1,
    }


def record(row, ap50, params=100.0):
    return {
        "row": f"{row.study.name}/{row.name}",
        "seed": row.seed,
        "command": row.command,
        "commit": "abc",
        "versions": {"python": "3.11"},
        "date": "2026-01-01",
        "seconds": 1.0,
        "data": {},
        "numbers": numbers(ap50, params),
        "training": [{"iterations": 4, "because": "no better"}],
    }


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS.format(config="none.yaml"))
    return read_rows(path)


def looks(*values, every=10):
    return [{"iteration": every * i, "AP50": value} for i, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), (10, ())),
        ((5.0,), (20, ())),
        ((5.0, 4.0), (30, ())),
        ((5.0, 4.0, 5.0), (40, (30,))),  # twice no better: the rate falls at 30
        ((5.0, 4.0, 5.0, 9.0), (45, (30,))),
        ((1.0, 2.0, 3.0, 4.0), (50, ())),
        ((1.0, 2.0, 3.0, 4.0, 5.0), (60, (50,))),  # the most
    ],
)
def test_rule_goes_on_while_it_helps(values, expected):
    assert Rule(every=10, most=50, patience=2, settle=15).next(looks(*values)) == expected


def test_rule_ends():
    rule = Rule(every=10, most=50, patience=2, settle=10)
    assert rule.next(looks(5.0, 4.0, 5.0, 9.0)) is None
    assert rule.reason(looks(5.0, 4.0, 5.0, 9.0)) == "no better AP50 in 2 evaluations, one every 10"
    assert Rule(every=10, most=20).next(looks(1.0, 0.0)) is None
    assert Rule(every=10, most=20).reason(looks(1.0, 0.0)) == "after 20 iterations"


@pytest.mark.parametrize(
    "values", [{"every": 0}, {"every": 1.5}, {"most": 0}, {"patience": -1}, {"settle": "long"}]
)
def test_rules_that_never_end_are_refused(values):
    with pytest.raises(InputError, match=f"rule: {next(iter(values))} is"):
        Rule(**{"every": 1, "most": 2, **values})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("studies:", "other:", "no studies"),
        ("    title: Small\n", "", "small: there is no title"),
        ("do: finetune, from: dense", "do: finetune, from: none", "there is no row none before"),
        ("do: finetune, from: dense", "do: finetune", "dense-longer begins with"),
        ("do: compress", "do: shrink", "there is no way to shrink"),
        ("seeds: [1, 2]", "seeds: 1", "small: a field is of another kind"),
        ("patience: 1", "patiense: 1", "small: a field is of another kind"),
        ("every: 2", "every: 0", "small: rule: every is 0"),
        ("rows:", "rows: 3\n    others:", "small: a field is of another kind"),
    ],
)
def test_rows_that_cannot_be_read_are_told_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS.format(config="none.yaml").replace(old, new, 1))
    with pytest.raises(InputError) as error:
        read_rows(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_documents_are_what_the_records_say():
    rows = read_rows()
    records = read_records(queue(rows))
    for name in tables.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert tables.render(text, rows, records) == text, "run: python tools/evidence.py tables"


def test_every_row_is_one_of_a_dense_model_and_has_a_step():
    from evidence.steps import STEPS

    for row in queue(read_rows()):
        assert next(row.lineage()).do == "train"
        assert row.study.config.is_file()
    assert set(STEPS) == set(DOINGS)


def test_tables_hold_means_spreads_and_what_was_not_run(rows, tmp_path):
    dense, other, *_ = rows["small"]
    (compact,) = (r for r in rows["small"] if r.name == "compact-12.4x" and r.seed == 1)
    found = [(dense, 80.0, 100.0), (other, 84.0, 100.0), (compact, 78.0, 25.0)]
    records = {row: record(row, ap50, params) for row, ap50, params in found}
    lines = tables.study_table(rows["small"], records).splitlines()
    by_name = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    # the deviation of two values is their difference over the root of two
    assert "82.00 ± 2.83" in by_name["dense"] and "2 of 2" in by_name["dense"]
    assert "-2.00 to dense (97.5%)" in by_name["compact-12.4x"]  # 78 beside 80, of the same seed
    assert "(4.0x)" in by_name["compact-12.4x"] and "1 of 2" in by_name["compact-12.4x"]
    assert by_name["finetuned-12.4x"].count("not run") == 6


def test_fine_tuned_is_beside_what_was_trained_as_long(rows):
    by_name = {row.name: row for row in rows["small"] if row.seed == 1}
    values = {"dense": 80.0, "dense-longer": 85.0, "finetuned-12.4x": 84.0}
    records = {by_name[name]: record(by_name[name], ap50) for name, ap50 in values.items()}
    table = tables.study_table(rows["small"], records)
    assert "-1.00 to dense-longer" in table and "+5.00 to dense " in table


def test_the_smallest_that_is_as_good_is_named(rows):
    by_name = {row.name: row for row in rows["small"] if row.seed == 1}
    found = {
        "dense": (80.0, 4e6), "dense-longer": (85.0, 4e6), "compact-12.4x": (79.5, 1e6),
        "finetuned-12.4x": (83.5, 1e6),
    }  # fmt: skip
    records = {by_name[name]: record(by_name[name], *values) for name, values in found.items()}
    table = tables.study_table(rows["small"], records)
    assert "trained as long: compact-12.4x, 1.00 M parameters (-0.50 to dense)." in table
    records[by_name["finetuned-12.4x"]]["numbers"]["AP50"] = 84.75  # better, and of one size
    assert "finetuned-12.4x, 1.00 M parameters (-0.25" in tables.study_table(rows["small"], records)
    for name in ("compact-12.4x", "finetuned-12.4x"):
        records[by_name[name]]["numbers"]["AP50"] = 70.0
    assert "smallest" not in tables.study_table(rows["small"], records)


def test_render_writes_between_markers_alone(rows):
    text = "a\n<!-- evidence: small -->\nold\n<!-- end of evidence -->\nb\n"
    new = tables.render(text, rows, {})
    assert new.startswith("a\n<!--") and new.endswith("-->\nb\n") and "old" not in new
    assert tables.render(new, rows, {}) == new
    with pytest.raises(InputError, match="no such study"):
        tables.render(text.replace("small", "large"), rows, {})


def test_records_are_read_as_written(rows, tmp_path):
    row = rows["small"][0]
    write_record(path_of(row, tmp_path), {**record(row, 50.0), "voc": float("nan")})
    found = read_records(rows["small"], tmp_path)
    assert list(found) == [row]
    assert found[row] == {"schema": SCHEMA, **record(row, 50.0), "voc": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": SCHEMA + 1}, f"a record of schema {SCHEMA + 1}, and this version reads"),
        ({"numbers": {}}, "no numbers.params"),
        ({"numbers": {**numbers(1.0), "AP50": "high"}}, "no numbers.AP50"),
        ({"numbers": {**numbers(1.0), "AP": float("nan")}}, "no numbers.AP;"),
        ({"numbers": [1]}, "no numbers;"),
        ({"row": "small/other"}, "is of small/other, not of small/dense seed 1"),
    ],
)
def test_records_that_cannot_be_used_are_refused_in_one_line(rows, tmp_path, change, message):
    row = rows["small"][0]
    path = path_of(row, tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"schema": SCHEMA, **record(row, 1.0), **change}))
    with pytest.raises(InputError) as error:
        read_records([row], tmp_path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00"])
def test_files_that_are_no_records_are_refused(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(InputError, match="record"):
        read_record(path)
    assert read_record(Path(tmp_path / "none.json")) is None


def test_sizes_are_plotted_of_what_was_run(rows, tmp_path):
    records = {row: record(row, 50.0 + i, 10.0 + i) for i, row in enumerate(rows["small"][:3])}
    plot_sizes(rows, records, str(tmp_path / "sizes.png"))
    width, height = Image.open(tmp_path / "sizes.png").size
    assert width > 600 and height > 400


@pytest.mark.parametrize("studies, panels", [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_an_empty_place_has_no_panel(rows, studies, panels, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    groups = {str(i): [rows["small"][0]] for i in range(studies)}
    plot_sizes(groups, {rows["small"][0]: record(rows["small"][0], 80.0)}, "sizes.png")
    assert sum(axes.get_visible() for axes in figures[0].axes) == panels


CONFIG = """
_BASE_: {root}/configs/{base}
MODEL:
  VGG: {{WIDTH_MULTIPLIER: 0.125}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
INPUT: {{MIN_SIZE_TRAIN: [64], MAX_SIZE_TRAIN: 128, MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 128}}
SOLVER: {{IMS_PER_BATCH: 2, CHECKPOINT_PERIOD: 1}}
"""


@pytest.fixture
def run_small(run_tool, shapes, tmp_path):
    """Run a row of ROWS with seed 2, in a folder of its own for each name."""
    config = tmp_path / "small.yaml"
    (tmp_path / "rows.yaml").write_text(ROWS.format(config=config))

    def run(row, name="one", base="Shapes-Detection/faster_rcnn_VGG_11.yaml"):
        config.write_text(CONFIG.format(root=ROOT, base=base))
        rows = queue(read_rows(tmp_path / "rows.yaml"))
        places = ["--work", tmp_path / name / "work", "--records", tmp_path / name / "records"]
        given = ["--rows", tmp_path / "rows.yaml", "--data", f"shapes={shapes / 'shapes'}"]
        status, lines = run_tool("evidence.py", "run", row, "--seed", 2, *places, *given)
        return status, lines, read_records(rows, tmp_path / name / "records")

    return run


def test_a_row_is_run_with_what_it_needs_and_then_left_alone(run_small, tmp_path):
    status, lines, records = run_small("small/finetuned-12.4x")
    assert status == 0, lines
    assert [str(row) for row in records] == [
        "small/dense seed 2",
        "small/compact-12.4x seed 2",
        "small/finetuned-12.4x seed 2",
    ]
    dense, compact, finetuned = records.values()
    assert compact["numbers"]["params"] * 4 <= dense["numbers"]["params"]
    assert finetuned["numbers"]["params"] == compact["numbers"]["params"]
    assert dense["data"]["train"]["images"] == 7 and dense["data"]["test"]["images"] == 2
    assert dense["training"][0]["evaluations"][-1][0] == dense["training"][0]["iterations"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*.json")}
    assert run_small("small/finetuned-12.4x")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_masks_are_recorded_and_have_columns(run_small):
    status, lines, records = run_small(
        "small/dense", base="Shapes-InstanceSegmentation/mask_rcnn_VGG_11.yaml"
    )
    assert status == 0, lines
    ((row, found),) = records.items()
    assert found["data"]["test"] == {"name": "shapes_masks_test", "images": 2, "boxes": 12}
    assert 0 <= found["numbers"]["mask_AP50"] <= 100
    found["numbers"].update(mask_AP=12.25, mask_AP50=37.5)
    heading, _, line = tables.study_table([row], records).splitlines()[3:6]
    cells = {key.strip(): x.strip() for key, x in zip(heading.split("|"), line.split("|"))}
    assert (cells["mask AP50"], cells["mask AP"]) == ("37.50", "12.25")
    assert cells["VOC mAP"] == f"{found['numbers']['voc_mAP']:.2f}"


def interrupt_once(monkeypatch):
    """As by the user, in the second evaluation."""
    evaluate, times = training.accuracy, iter(range(9))

    def interrupted(cfg, model):
        if next(times) == 1:
            raise KeyboardInterrupt
        return evaluate(cfg, model)

    monkeypatch.setattr(training, "accuracy", interrupted)


def test_an_interrupted_row_goes_on_to_the_same_numbers(run_small, monkeypatch):
    _, _, whole = run_small("small/dense")
    interrupt_once(monkeypatch)
    status, _, nothing = run_small("small/dense", "other")
    assert status == 130 and not nothing
    status, lines, resumed = run_small("small/dense", "other")
    assert status == 0, lines
    (whole,), (resumed,) = whole.values(), resumed.values()
    assert resumed["begun"] == 2 and whole["begun"] == 1
    assert resumed["numbers"] == whole["numbers"] and resumed["training"] == whole["training"]


def test_a_record_says_in_what_precision_each_round_was_run(run_small, monkeypatch):
    """Two machines may share a training, and what runs it last may have run none of it."""
    monkeypatch.setattr(training, "has_onednn", lambda dtype: False)
    interrupt_once(monkeypatch)
    assert run_small("small/dense")[0] == 130
    monkeypatch.setattr(training, "has_onednn", lambda dtype: True)
    status, lines, records = run_small("small/dense")
    assert status == 0, lines
    ((row, record),) = records.items()
    assert [fact["precision"] for fact in record["training"]] == ["float32 and bfloat16"]
    assert "precision" not in record["numbers"]
    assert "Trained in float32 and bfloat16." in tables.study_table([row], records)


def test_a_row_without_its_data_is_told_in_one_line(run_tool, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "none"))
    places = ["--work", tmp_path / "work", "--records", tmp_path / "records"]
    status, lines = run_tool("evidence.py", "run", "bccd-vgg16/dense", "--seed", 1, *places)
    assert status == 1
    assert "bccd-vgg16/dense seed 1: bccd: there is no" in lines[-2]
    assert "--data bccd=FOLDER" in lines[-2]
    assert lines[-1] == "error: 1 of 1 rows were not run; see above"
    assert not list((tmp_path / "records").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name rows, or give --all"),
        (("bccd-vgg16", "--all"), "name rows, or give --all"),
        (("none",), "none: no such row"),
        (("bccd-vgg16/none",), "one of dense, compact-12.4x"),
        (("bccd-vgg16/dense", "--seed", 9), "seeds 1, 2, 3"),
        (("bccd-vgg16/dense", "--data", "bccd"), "--data bccd: expected NAME=PATH"),
        (("bccd-vgg16/dense", "--data", "bccd=/none"), "--data bccd=/none: expected NAME=PATH"),
    ],
)
def test_arguments_that_name_nothing(run_tool, tmp_path, arguments, message):
    status, lines = run_tool("evidence.py", "run", *arguments, "--work", tmp_path / "work")
    assert status == 1
    assert len(lines) == 1 and message in lines[0]
