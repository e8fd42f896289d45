"""Tables in Markdown of the records, between markers in the documents."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from sparsedet.errors import InputError
from sparsedet.files import replacing
from sparsedet.reports.tables import pipe_table

from .records import ACCURACIES, FOLDER, NUMBERS, read_records
from .studies import ROOT, Row, queue, read_rows

DOCUMENTS = ("README.md", "docs/evidence.md")
SUMMARY = "summary"
MARKED = re.compile(r"(<!-- evidence: (\S+) -->\n).*?(<!-- end of evidence -->)", re.DOTALL)
NOT_RUN = "not run"
LONGER = "dense-longer"
NEAR = 1.0
"""AP50 by which a model may be below the dense one, and still be called as good."""

Records = Mapping[Row, Mapping]
"""What was recorded; a row that was not run is not in it."""


def write_documents(root: Path = ROOT, folder: Path = FOLDER) -> list[Path]:
    """Write every document's tables anew; those that changed.

    Raises:
        InputError: as :func:`read_records` and :func:`render`.
    """
    changed = []
    rows = read_rows()
    records = read_records(queue(rows), folder)
    for name in DOCUMENTS:
        path = root / name
        before = path.read_text(encoding="utf-8")
        after = render(before, rows, records)
        if after != before:
            with replacing(str(path)) as temporary:
                Path(temporary).write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def render(text: str, rows: Mapping[str, list[Row]], records: Records) -> str:
    """A document with what stands between its markers written anew.

    Raises:
        InputError: a marker names no study.
    """

    def table(match: re.Match) -> str:
        start, name, end = match.groups()
        if name == SUMMARY:
            return f"{start}{summary(rows, records)}\n{end}"
        if name not in rows:
            raise InputError(f"<!-- evidence: {name} -->: no such study; one of {', '.join(rows)}")
        return f"{start}{study_table(rows[name], records)}\n{end}"

    return MARKED.sub(table, text)


def study_table(rows: Sequence[Row], records: Records) -> str:
    """A line for each row of a study, the rows of other studies that it rests on first."""
    study = rows[0].study
    before = {row.parent for row in rows if row.parent and row.parent.study is not study}
    groups: dict[str, list[Row]] = {}
    for row in [*sorted(before, key=lambda row: (row.name, row.seed)), *rows]:
        groups.setdefault(f"{row.study.name}/{row.name}", []).append(row)
    known = {*NUMBERS, *(key for row in rows if row in records for key in records[row]["numbers"])}
    others = [key for key in ACCURACIES if key in known and key != "AP50"]
    lines = [_line(group, records, others) for group in groups.values()]
    headings = ["row", "parameters", "multiply-adds", "AP50", "against"]
    table = pipe_table([*headings, *(ACCURACIES[key] for key in others), "seeds"], lines)
    own = [group for group in groups.values() if group[0].study is study]
    below = [smallest(own, records), _conditions(rows, records)]
    text = "\n".join(line for line in below if line)
    return f"\n{study.title}:\n\n{table}\n\n{text}\n"


def smallest(groups: Iterable[Sequence[Row]], records: Records) -> str:
    """The row of fewest parameters that is as good as the dense model trained as long; "" if none.

    Of rows of one size it is the best one.
    """
    good = []
    for group in groups:
        run = [row for row in group if row in records]
        pairs = _pairs(run, records)
        difference = mean(ours - theirs for ours, theirs, _ in pairs) if pairs else -math.inf
        if group[0].name != LONGER and difference >= -NEAR:
            params = mean(_numbers(run, records, "params"))
            good.append((params, -difference, group[0].name, pairs[0][2].name))
    if not good:
        return ""
    params, lost, name, reference = min(good)
    return (
        f"The smallest within {NEAR:g} AP50 of the dense model that was trained as long: {name}, "
        f"{params / 1e6:.2f} M parameters ({-lost:+.2f} to {reference}).\n"
    )


def _line(group: Sequence[Row], records: Records, others: Sequence[str]) -> list[str]:
    """Of all seeds of a row; ``others`` are the accuracies beside AP50."""
    run = [row for row in group if row in records]
    if not run:
        return [group[0].name, *[NOT_RUN] * (4 + len(others)), f"0 of {len(group)}"]
    dense = [first for first in (next(row.lineage()) for row in run) if first in records]
    return [
        group[0].name,
        _cost(run, dense, records, "params", 1e6, "M"),
        _cost(run, dense, records, "multiply_adds", 1e9, "G"),
        spread(_numbers(run, records, "AP50")),
        _against(run, records),
        *(spread(_numbers(run, records, key)) for key in others),
        f"{len(run)} of {len(group)}",
    ]


def _numbers(rows: Iterable[Row], records: Records, key: str) -> list[float]:
    return [records[row]["numbers"][key] for row in rows]


def _cost(run, dense, records, key: str, unit: float, letter: str) -> str:
    value = mean(_numbers(run, records, key))
    text = f"{value / unit:.2f} {letter}"
    if not dense or run[0].parent is None:
        return text
    factor = mean(_numbers(dense, records, key)) / value
    return text if round(factor, 1) == 1 else f"{text} ({factor:.1f}x)"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; of one value, itself."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def _against(run: Sequence[Row], records: Records) -> str:
    """The mean difference of AP50 to the dense model of the same seed that was trained as long."""
    pairs = _pairs(run, records)
    if not pairs:
        return ""
    ours, theirs, (reference, *_) = zip(*pairs)
    difference = mean(a - b for a, b in zip(ours, theirs))
    return f"{difference:+.2f} to {reference.name} ({mean(ours) / max(mean(theirs), 1e-9):.1%})"


def _pairs(run: Sequence[Row], records: Records) -> list[tuple[float, float, Row]]:
    """AP50 of each, and of the dense model of its seed, which is given too."""
    found = []
    for row in run:
        other = _reference(row, records)
        if other in records and other is not row:
            found.append((*_numbers((row, other), records, "AP50"), other))
    return found


def _reference(row: Row, records: Records) -> Row | None:
    dense = next(row.lineage())
    if row.name == LONGER or row.do not in ("finetune", "quantize"):
        return dense
    longer = (x for x in records if (x.study, x.name) == (dense.study, LONGER))
    return next((x for x in longer if x.seed == row.seed), None)


def _conditions(rows: Sequence[Row], records: Records) -> str:
    """How long the dense models were trained, and what all that was run was run with."""
    run = [records[row] for row in rows if row in records]
    command = f"`python tools/evidence.py run {rows[0].study.name}/ROW --seed SEED`"
    if not run:
        return f"{command} runs a row."
    trained = [r["training"][-1] for row, r in records.items() if row in rows and row.do == "train"]
    lines = []
    if trained:
        iterations = ", ".join(str(fact["iterations"]) for fact in trained)
        reasons = "; ".join(dict.fromkeys(fact["because"] for fact in trained))
        lines.append(f"Dense, last phase: {iterations} iterations; the rate fell {reasons}.")
    phases = [fact for record in run for fact in record.get("training", ())]
    if phases:
        # Records from before it was chosen by the processor say nothing, and are of float32.
        precisions = dict.fromkeys(fact.get("precision", "float32") for fact in phases)
        lines.append(f"Trained in {', '.join(precisions)}.")
    dates = sorted({record["date"] for record in run})
    versions = "; ".join(dict.fromkeys(_versions(record["versions"]) for record in run))
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines.append(f"Run {when} with {versions}. {command} runs a row again.")
    return "\n".join(lines)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in versions if name != "threads")


def summary(rows: Mapping[str, list[Row]], records: Records) -> str:
    """AP50 of the rows that every study has, a line for each study."""
    columns = {
        "dense": "dense",
        "12.4x, nothing trained": "compact-12.4x",
        "20x, nothing trained": "compact-20x",
        "dense, trained on": LONGER,
        "12.4x, fine-tuned": "finetuned-12.4x",
        "20x, fine-tuned": "finetuned-20x",
        "12.4x, int8": "int8-12.4x",
    }
    lines = []
    for group in rows.values():
        names = {row.name for row in group}
        if not names.issuperset(columns.values()):
            continue
        cells = []
        for name in columns.values():
            run = [row for row in group if row.name == name and row in records]
            cells.append(_seeds(run, records) if run else NOT_RUN)
        lines.append([group[0].study.title, *cells])
    return f"\n{pipe_table(['AP50', *columns], lines)}\n"


def _seeds(run: Sequence[Row], records: Records) -> str:
    text = spread(_numbers(run, records, "AP50"))
    return text if len(run) > 1 else f"{text} (one seed)"
