"""Table 2 of `docs/evaluation.md`: how often each method finds what an answer rests on, suite by suite, and who wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tracestore.evaluate.intervals import Interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.report import column, difference, interval
from tracestore.evaluate.runner import Row

METHODS: Final = (
    "secant.drive",
    "secant.direct",
    "secant.total",
    "frozen.drive",
    "frozen.direct",
    "frozen.total",
    "random",
    "recency",
    "raw_attention",
    "rollout",
    "attention_norm",
    "direct_logit",
    "alti",
    "ifr",
    "saliency",
    "gradient_x_input",
    "integrated_gradients",
    "attnlrp.score",
    "ablation_regression",
    "leave_one_out",
    "leave_one_out_mean",
)

INTRODUCTION: Final = """## Table 2: accuracy in capturing logical steps, against baselines

*Chains*: every step of the pointer chase and of the three-hop circuit is found. The other columns are precision@1 and the mean reciprocal
rank (MRR) of the first token of marked evidence, whatever the answer was, and AOPC by knockout of columns. **Bold**: the highest mean of
its column; `~`: not shown to be below it (paired). One method is one row in every column.
All measures of every suite stand in [all tables](evaluation-tables.md).
"""


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    suites: tuple[str, ...]
    measure: str
    task: str | None = None

    def rows(self, suites: Mapping[str, Sequence[Row]]) -> list[Row]:
        found = [row for name in self.suites for row in suites.get(name, ())]
        return [row for row in found if self.task in (None, row["task"])]


_COLUMNS: Final = (
    _Column("chase: chains", ("chase",), "chain"),
    _Column("circuit, three hops: chains", ("circuits",), "chain", "hop3"),
    _Column("prompts: precision@1", ("prompts", "held_out"), "top1"),
    _Column("prompts: MRR", ("prompts", "held_out"), "mrr"),
    _Column("mathematics, logic: MRR", ("reasoning",), "mrr"),
    _Column("commonsense: MRR", ("commonsense",), "mrr"),
    _Column("long prompts: MRR", ("long",), "mrr"),
    _Column("prompts: AOPC", ("prompts", "held_out"), "comprehensiveness_column"),
)


def accuracy_section(suites: Mapping[str, Sequence[Row]]) -> str:
    """Write the table."""
    columns = [(one, rows) for one in _COLUMNS if (rows := one.rows(suites))]
    cells = [list(_cells(rows, one.measure)) for one, rows in columns]
    counts = [len({row["id"] for row in rows}) for _, rows in columns]
    heads = [f"{one.heading} ({n})" for (one, _), n in zip(columns, counts, strict=True)]
    lines = table_lines(["method", *heads], zip([f"`{method}`" for method in METHODS], *cells, strict=True))
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def _cells(rows: Sequence[Row], measure: str) -> Iterator[str]:
    """Give one column's cells: the mean with its interval, and how it stands to the best."""
    means = {method: interval(rows, method, measure) for method in METHODS if column(rows, method, measure)}
    best = max((found.centre for found in means.values() if found.centre == found.centre), default=None)
    winner = next((method for method, found in means.items() if found.centre == best), None)
    for method in METHODS:
        found = means.get(method)
        if found is None or winner is None or found.centre != found.centre:
            yield "-"
        elif found.centre == best:
            yield f"**{found}**{_fewer(found, rows)}"
        else:
            same = "" if difference(rows, method, winner, measure).below_zero else " ~"
            yield f"{found}{_fewer(found, rows)}{same}"


def _fewer(found: Interval, rows: Sequence[Row]) -> str:
    """Say so where a method was not run on all of a column's cases."""
    return "" if found.n == len({row["id"] for row in rows}) else f" (of {found.n})"
