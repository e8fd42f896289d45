"""What evaluators say of models, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .tables import pipe_table


def metrics_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each metric in Markdown, a column for each model; single classes are left out.

    Args:
        results: of each model by name, the first of which is the reference: its tasks ("bbox",
            "segm" ...) and their metrics, in percent, or such by data set.
    """
    flat = {name: dict(_flat(tasks)) for name, tasks in results.items()}
    reference, *others = flat.values()
    metrics = dict.fromkeys(metric for values in flat.values() for metric in values)
    rows = [
        [
            metric,
            _number(reference.get(metric)),
            *(_beside(other.get(metric), reference.get(metric)) for other in others),
        ]
        for metric in metrics
    ]
    return pipe_table(["", *flat], rows)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif "-" not in key:  # as in AP-person
            yield prefix + key, value


def _number(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:.2f}"


def _beside(value: float | None, reference: float | None) -> str:
    text = _number(value)
    if "n/a" in (text, _number(reference)):
        return text
    return f"{text} ({value - reference:+.2f})"
