"""Results of models side by side, in Markdown.

Results are dicts by model name, the first of which is the reference:
`{"dense": {"params", "multiply_adds", "ms", "AP", "AP50", "voc_mAP"}, ...}`: parameters,
multiply-adds and milliseconds per image, and the three metrics in percent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from tabulate import tabulate

# key: heading, unit that is divided by, format, and whether it is a cost (compared by ratio)
COLUMNS = {
    "params": ("parameters", 1e6, "{:.2f} M", True),
    "multiply_adds": ("multiply-adds", 1e9, "{:.2f} G", True),
    "ms": ("ms per image", 1, "{:.1f}", True),
    "AP": ("COCO AP", 1, "{:.2f}", False),
    "AP50": ("AP50", 1, "{:.2f}", False),
    "voc_mAP": ("VOC mAP", 1, "{:.2f}", False),
}


def markdown_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """One row per model, in Markdown; costs with the factor saved, metrics with the difference.

    `0.40 M (3.1x)` is 3.1 times fewer than the first model has. What is missing or nan is `n/a`.
    """
    reference = next(iter(results.values()))
    rows = [
        [name] + [_cell(key, result, None if result is reference else reference) for key in COLUMNS]
        for name, result in results.items()
    ]
    headings = ["model"] + [heading for heading, *_ in COLUMNS.values()]
    return pipe_table(headings, rows)


def pipe_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Cells as they are in a Markdown table, the columns ``left`` aligned there."""
    align = ["left" if column in left else "right" for column in range(len(headings))]
    return tabulate(rows, headings, tablefmt="pipe", colalign=align, disable_numparse=True)


def _cell(key: str, result: Mapping[str, float], reference: Mapping[str, float] | None) -> str:
    _, unit, template, is_cost = COLUMNS[key]
    value = result.get(key, math.nan)
    if math.isnan(value):
        return "n/a"
    text = template.format(value / unit)
    base = math.nan if reference is None else reference.get(key, math.nan)
    if math.isnan(base) or (is_cost and value == 0):
        return text
    return text + (f" ({base / value:.1f}x)" if is_cost else f" ({value - base:+.2f})")
