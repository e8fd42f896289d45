"""JSON that cannot be read is told in one line, by everybody who reads it."""

import json

import pytest

from sparsedet.errors import InputError
from sparsedet.json_files import read_json
from sparsedet.max_drop import Search
from sparsedet.reports.training import read_metrics

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [(DEEP, "nested too deeply"), ("{", "cannot be read as json"), ("9" * 5000, "digits")],
)
def test_what_is_no_json(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{reason}"):
        read_json(path)


def test_json_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, "é"]}


STEP = {"factor": 2.0, "parameters": 5, "multiply_adds": 1.0, "milliseconds": 0.0, "score": 90.0}


def search(**changes):
    return json.dumps({"settings": {"max_drop": 1}, "steps": [{**STEP, **changes}]})


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        json.dumps({"settings": [1], "steps": [STEP]}),
        json.dumps({"settings": {"max_drop": 1}, "steps": []}),
        search(score="90"),
        search(score=float("nan")),
        search(parameters=10**400),
        search(factor=-2.0),
    ],
)
def test_the_record_of_a_search_that_is_none(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(InputError, match=r"search\.json: not the record of a search"):
        Search(str(tmp_path), {"max_drop": 1})


def test_metrics_without_numbers_are_left_out(tmp_path):
    lines = ['{"iteration": 19, "total_loss": 1.5, "x": "y"}', '{"iteration": "39"}', DEEP]
    lines += [json.dumps({"iteration": 10**300}), json.dumps({"iteration": 59, "x": 10**40})]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert read_metrics(str(tmp_path / "metrics.json")) == [
        {"iteration": 19, "total_loss": 1.5},
        {"iteration": 59},
    ]
