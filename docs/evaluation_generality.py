"""Generality in `docs/evaluation.md`: tasks and lengths one by one, long prompts, a second language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from docs.evaluation_bars import COLUMN, MEAN, verdict
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import difference, interval, methods_of
from tracestore.evaluate.runner import Row

TUNED: Final = frozenset({"facts", "arithmetic", "indirect_object", "two_hop", "leg_counting"})
LENGTHS: Final = ((1, 12), (13, 30), (31, 60), (61, 120), (121, 300), (301, 10_000))
OTHERS: Final = ("random", "raw_attention", "secant.direct", "leave_one_out")
HEADS: Final = ("", "cases, right", "AOPC", *(f"less `{other}`" for other in OTHERS), "MRR on evidence")


def generality_section(suites: Mapping[str, list[Row]], ours: str) -> str:
    """Tell tasks and lengths apart: what was never tuned on, and what is long."""
    rows = [row for name in ("prompts", "held_out", "reasoning", "long") for row in suites.get(name, ())]
    rows += [{**row, "task": "commonsense"} for row in suites.get("commonsense", ())]
    groups = [(f"{task}{'' if task in TUNED else ' (never tuned on)'}", [r for r in rows if r["task"] == task]) for task in _tasks(rows)]
    groups += [
        (f"{low} to {high} tokens" if high < 1_000 else f"{low} tokens or more", [r for r in rows if low <= r["n_tokens"] <= high])
        for low, high in LENGTHS
    ]
    lines = [
        "## Generality\n",
        f"`{ours}` by task and by length of the prompt, over all language suites; AOPC by knockout of columns, paired. (Past 300 tokens "
        "`leave_one_out` was not run.)\n",
        *table_lines(HEADS, [_group(name, mine, ours) for name, mine in groups if mine]),
        "",
    ]
    return "\n".join(lines)


def _group(name: str, rows: Sequence[Row], ours: str) -> list[str]:
    cases = {row["id"]: row["correct"] for row in rows}
    cells = [name, f"{len(cases)}, {sum(right is True for right in cases.values())}", str(interval(rows, ours, COLUMN))]
    cells += [verdict(difference(rows, ours, other, COLUMN)) for other in OTHERS]
    return [*cells, str(interval(rows, ours, "mrr"))]


def _tasks(rows: Sequence[Row]) -> list[str]:
    return sorted({row["task"] for row in rows}, key=lambda task: (task not in TUNED, task))


def second_section(rows: Sequence[Row], ours: str) -> str:
    """Report the second language model, method by method."""
    if not rows:
        return ""
    cases = {row["id"]: row["correct"] for row in rows}
    lines = [
        "### A second language model\n",
        f"Gemma 3 270M (4-bit weights, raised to float32; [where it comes from](evaluation-larger-models.md)) on {len(cases)} items of "
        f"`held_out`; it answers {sum(right is True for right in cases.values())} right. The ranking was not chosen "
        "on it.\n",
    ]
    heads = ["method", "AOPC column", f"`{ours}` less it", "AOPC mean", f"`{ours}` less it", "MRR on evidence", "largest closure error"]
    table = []
    for method in methods_of(rows):
        cells = [f"`{method}`"]
        for measure in (COLUMN, MEAN):
            cells += [str(interval(rows, method, measure)), "" if method == ours else verdict(difference(rows, ours, method, measure))]
        closures = [row["closure"] for row in rows if row["method"] == method and row.get("closure") is not None]
        cells += [str(interval(rows, method, "mrr")), f"{max(closures):.0e}" if closures else ""]
        table.append(cells)
    return "\n".join([*lines, *table_lines(heads, table)]) + "\n"
