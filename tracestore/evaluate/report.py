"""From rows to Markdown: every mean with its bootstrap interval, right answers and wrong ones apart, pairs against the default method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tracestore.evaluate.intervals import Interval, mean_interval, median_interval, paired_interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.runner import REFUSED, Row

_NAN: Final = float("nan")

KNOWN: Final = (
    ("top1", "first is true"),
    ("chain", "all steps found"),
    ("step1", "step 1"),
    ("step2", "step 2"),
    ("step3", "step 3"),
    ("share", "share on the truth"),
)
EVIDENCE: Final = (
    ("top1", "precision@1"),
    ("precision3", "precision@3"),
    ("mrr", "MRR"),
    ("f1", "token F1"),
    ("iou", "IoU"),
    ("auprc", "AUPRC"),
    ("share", "share on evidence"),
)
REMOVAL: Final = (
    ("comprehensiveness_column", "AOPC, column"),
    ("comprehensiveness_mean", "AOPC, mean embedding"),
    ("sufficiency_column", "sufficiency, column"),
    ("deletion_column", "deletion"),
    ("insertion_column", "insertion"),
)


def column(rows: Sequence[Row], method: str, measure: str) -> dict[str, float]:
    """Give a method's values of a measure by case."""
    return {row["id"]: _NAN if row.get(measure) is None else float(row[measure]) for row in rows if row["method"] == method}


def interval(rows: Sequence[Row], method: str, measure: str) -> Interval:
    """Give the mean of a measure with its interval."""
    return mean_interval(list(column(rows, method, measure).values()))


def cost(rows: Sequence[Row], method: str) -> Interval:
    """Give the median of a method's forwards with its interval."""
    return median_interval(list(column(rows, method, "forwards").values()))


def difference(rows: Sequence[Row], ours: str, theirs: str, measure: str) -> Interval:
    """Give the paired difference of two methods on the cases that both have."""
    a, b = column(rows, ours, measure), column(rows, theirs, measure)
    both = [case for case in a if case in b]
    return paired_interval([a[case] for case in both], [b[case] for case in both])


def methods_of(rows: Iterable[Row]) -> list[str]:
    """List the methods in the order in which they were run."""
    return list(dict.fromkeys(row["method"] for row in rows))


def table(rows: Sequence[Row], measures: Sequence[tuple[str, str]], *, with_cost: bool = True) -> str:
    """Make a Markdown table, one line a method; measures that no row has are left out."""
    present = [(name, heading) for name, heading in measures if any(row.get(name) is not None for row in rows)]
    lines = []
    for method in methods_of(rows):
        cells = [method, *(str(interval(rows, method, name)) for name, _ in present)]
        if with_cost:
            cells.append(f"{cost(rows, method):.1f}")
        lines.append(cells)
    heads = ["method", *(heading for _, heading in present), *(["forwards"] if with_cost else [])]
    return "\n".join([*table_lines(heads, lines), *_refusals(rows)]) + "\n"


def refusals(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Give the methods that could not run on a model, by what they said of it."""
    found: dict[str, list[str]] = {}
    for method, reason in dict.fromkeys((row["method"], row[REFUSED]) for row in rows if REFUSED in row):
        found.setdefault(reason, []).append(method)
    return found


def _refusals(rows: Sequence[Row]) -> list[str]:
    return [f"\nNo number for {', '.join(methods)}: {reason}." for reason, methods in refusals(rows).items()]


def paired_table(rows: Sequence[Row], ours: str, measures: Sequence[tuple[str, str]]) -> str:
    """Compare one method with every other, pair by pair: the difference, bold where its interval excludes 0."""
    present = [(name, heading) for name, heading in measures if any(row.get(name) is not None for row in rows)]
    lines = [
        [method, *(bold_if_shown(difference(rows, ours, method, name)) for name, _ in present)]
        for method in methods_of(rows)
        if method != ours
    ]
    return "\n".join(table_lines([f"{ours} less", *(heading for _, heading in present)], lines)) + "\n"


def bold_if_shown(found: Interval) -> str:
    """Write a paired difference, bold where its interval excludes 0."""
    return f"**{found}**" if found.above_zero or found.below_zero else str(found)


def suite_report(name: str, about: str, rows: Sequence[Row], ours: str) -> str:
    """Report one suite. Suites with known drivers are told task by task, others by whether the model's answer was right."""
    cases = {row["id"] for row in rows}
    parts = [f"## Suite `{name}`\n\n{about[0].upper()}{about[1:]}. {len(cases)} cases.\n"]
    if not any("comprehensiveness_column" in row for row in rows):
        for task in dict.fromkeys(row["task"] for row in rows):
            chosen = [row for row in rows if row["task"] == task]
            parts.append(f"### {task} ({len({row['id'] for row in chosen})} cases)\n\n{table(chosen, KNOWN, with_cost=False)}")
        return "\n".join(parts)
    for title, verdict in (("right answers", True), ("wrong answers", False), ("without a verdict", None)):
        chosen = [row for row in rows if row["correct"] is verdict]
        if chosen:
            count = len({row["id"] for row in chosen})
            parts.append(f"### Marked evidence, {title} ({count} cases)\n\n{table(chosen, EVIDENCE, with_cost=False)}")
    right = [row for row in rows if row["correct"] is True]
    if right:
        with_first = [(f"{measure}_with_first", heading) for measure, heading in EVIDENCE]
        parts.append(f"### Marked evidence, right answers, the first token counted too\n\n{table(right, with_first, with_cost=False)}")
    parts.append(f"### Removals, all answers\n\n{table(rows, REMOVAL)}")
    parts.append(f"### {ours} against the others, paired\n\n{paired_table(rows, ours, (*REMOVAL[:2], EVIDENCE[2], EVIDENCE[5]))}")
    return "\n".join(parts)
