"""The bars of `docs/evaluation.md`: what a default method has to reach, line by line, on the fresh set and on the first one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tracestore.evaluate import evaluation
from tracestore.evaluate.intervals import Interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import REMOVAL, column, cost, difference, interval
from tracestore.evaluate.runner import Row

CANDIDATES: Final = ("secant.drive", "frozen.drive", "secant.direct", "frozen.direct", "secant_h25.direct")
"""Rankings that were candidates for the default, the chosen one first."""

BELOW: Final = ("random", "recency", "raw_attention", "rollout", "gradient_x_input", "ifr")
REFERENCES: Final = ("leave_one_out", "leave_one_out_mean")
FURTHER: Final = ("saliency", "integrated_gradients", "direct_logit", "attention_norm", "alti", "ablation_regression")
SETS: Final = (("held_out",), ("prompts",), ("held_out", "prompts"))
FORWARDS: Final = 3.0
FEWEST: Final = 5
COLUMN, MEAN = (name for name, _ in REMOVAL[:2])


def verdict(found: Interval) -> str:
    """Write a paired difference with what it shows."""
    if found.n < FEWEST:
        return "-" if found.n == 0 else f"{found} too few"
    return f"{found} {'above' if found.above_zero else '**below**' if found.below_zero else 'no difference shown'}"


def bars_section(suites: Mapping[str, list[Row]]) -> str:
    """Say what the bars are, and whether they are met."""
    known = [dict(_known(suites, name)) for name in CANDIDATES]
    lines = ["## The bars\n", "Known drivers, one ranking for all of them:\n"]
    lines += _table([f"`{name}`" for name in CANDIDATES], [(line, [found.get(line, "-") for found in known]) for line in known[0]])
    lines.append(
        f"AOPC of `{evaluation.OURS}` less another order, paired; *above* and *below* where the interval excludes 0. `held_out` was "
        "written before the ranking was chosen (on tuning items), and run once after it; `prompts` had been looked at before.\n"
    )
    sets = [[row for name in names for row in suites.get(name, ())] for names in SETS]
    heads = [f"{' and '.join(f'`{name}`' for name in names)}, {how}" for names in SETS for how in ("column", "mean embedding")]
    rows = []
    for others, bar in ((BELOW, "bar: above"), (REFERENCES[:1], "bar: not below"), (REFERENCES[1:], "no bar"), (FURTHER, "no bar")):
        rows += [(f"`{other}` ({bar})", _differences(sets, evaluation.OURS, other)) for other in others]
    lines += _table(heads, rows)
    lines.append("The candidates less `leave_one_out`, likewise:\n")
    lines += _table(heads, [(f"`{name}`", _differences(sets, name, "leave_one_out")) for name in CANDIDATES])
    return "\n".join(lines)


def _differences(sets: Sequence[Sequence[Row]], ours: str, other: str) -> list[str]:
    return [verdict(difference(rows, ours, other, measure)) for rows in sets for measure in (COLUMN, MEAN)]


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    return [*table_lines(["", *heads], [(name, *cells) for name, cells in rows]), ""]


def _known(suites: Mapping[str, list[Row]], name: str) -> Iterator[tuple[str, str]]:
    chase, circuits = suites["chase"], suites["circuits"]
    for measure, about in (("top1", "the true entry is first"), ("chain", "whole chains")):
        yield f"pointer chase: {about} (bar: 1.00)", _met(interval(chase, name, measure))
    for task in dict.fromkeys(row["task"] for row in circuits):
        mine = [row for row in circuits if row["task"] == task]
        steps = [f"step{n}" for n in (1, 2, 3) if any(row.get(f"step{n}") is not None for row in mine)]
        bar = " (bar: 1.00)" if task == "hop3" else ""
        yield f"circuit `{task}`: recall of each step{bar}", "; ".join(str(interval(mine, name, step)) for step in steps)
    closures = [value for rows in (chase, circuits) for value in column(rows, name, "closure").values() if value == value]
    yield (
        "the trace conserves: largest miss relative to the explained quantity (chase, circuits)",
        f"{max(closures):.0e}" if closures else "row by row (tests)",
    )
    spent = cost(suites["prompts"], name)
    if spent.n:
        yield f"forwards on `prompts`, median (bar: {FORWARDS:.0f})", f"{spent:.1f}: {'met' if spent.high <= FORWARDS else 'missed'}"


def _met(found: Interval) -> str:
    return "-" if found.n == 0 else f"{found}: {'met' if found.centre == 1.0 else 'missed'}"
