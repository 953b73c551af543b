"""Evaluate suites into a folder: rows as they are made, then Parquet, a Markdown report and pictures.

OUT/<suite>.jsonl     one line a case, appended; a killed run goes on from it
OUT/<suite>-steps.jsonl   one line a chain whose step graph was compared with a proof, likewise
OUT/rows.parquet      every row of this call
OUT/report.md         tables
OUT/*.png, *.html     pictures
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.figures import bars, side_by_side, step_picture
from tracestore.evaluate.human import ORDERS, agreement, step_graph, summary
from tracestore.evaluate.intervals import mean_interval, paired_interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.methods import Method
from tracestore.evaluate.report import bold_if_shown, interval, methods_of, suite_report
from tracestore.evaluate.runner import Row, RunSettings, evaluate_item, run_items, run_suite
from tracestore.evaluate.suites.registry import Suite, suite_items
from tracestore.evaluate.workers import Workers
from tracestore.extract.loading import LoadedModel

OURS: Final = "secant.drive"
"""The column that the paired tables put against the others."""

STEPS_BY: Final = "secant"
"""The method that step graphs are traced with."""

PICTURES: Final = 6
"""Items that are drawn beside a person's reasoning."""


@dataclass(slots=True)
class Evaluation:
    """What a call found: rows of every suite, and of the comparison of step graphs with proofs."""

    folder: Path
    suites: dict[str, list[Row]] = field(default_factory=dict)
    steps: list[Row] = field(default_factory=list)


def run(
    suites: Sequence[Suite],
    methods: Sequence[Method],
    folder: Path,
    *,
    model: str,
    workers: Workers,
    split: str | None = "report",
    limit: int | None = None,
    spared: Collection[str] = (),
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate suites and write everything into `folder`. `split` None takes tuning items as well.

    Methods that are `spared` are measured against evidence alone, not by removals.

    Items go to the `workers`; suites with a model of their own are quick and stay in this process.
    """
    found = Evaluation(folder)
    names = tuple(method.name for method in methods)
    reports = []
    for suite in suites:
        settings = RunSettings(
            suite.name, "" if suite.items is None else model, names, suite.faithful, split, tuple(sorted(set(names) & set(spared)))
        )
        path, items = folder / f"{suite.name}.jsonl", suite_items(suite, split)
        if suite.cases is not None:
            rows = run_suite(suite.cases(limit), methods, settings, path, progress=progress)
        else:
            rows = run_items(items, partial(evaluate_item, settings=settings), settings, path, workers, limit=limit, progress=progress)
        found.suites[suite.name] = rows
        if rows:
            ours = OURS if OURS in names else names[0]
            reports.append(suite_report(suite.name, suite.about, rows, ours))
            _draw_suite(suite.name, rows, folder)
        if suite.proofs:
            chains = [item for item in items if item.proof]
            settings = replace(settings, methods=(STEPS_BY, *ORDERS))  # rows of other orders are not taken over
            path = folder / f"{suite.name}-steps.jsonl"
            found.steps = run_items(chains, compare_steps, settings, path, workers, limit=limit)
            _draw_steps(chains[:limit][:PICTURES], workers, folder)
            reports.append(steps_report(found.steps))
    _write(found, reports)
    return found


def compare_steps(loaded: LoadedModel, item: Annotated) -> list[Row]:
    """Compare the step graph of a chain with its proof."""
    return agreement(step_graph(loaded, item, STEPS_BY))


def steps_report(rows: Sequence[Row]) -> str:
    """Report the agreement of step graphs with proofs."""
    measures, lines = ("top1", "auprc"), []
    for order in dict.fromkeys(row["order"] for row in rows):
        means = [str(mean_interval(summary(rows, order, measure))) for measure in measures]
        less = [paired_interval(summary(rows, "supports", measure), summary(rows, order, measure)) for measure in measures]
        lines.append([order, *means, *("" if order == "supports" else bold_if_shown(one) for one in less)])
    heads = ["order of the sources", "first is in the proof", "AUPRC", "`supports` less it: first", "AUPRC"]
    title = f"## Step graph against the person's proof ({len({row['id'] for row in rows})} chains)\n"
    return "\n".join([title, *table_lines(heads, lines)]) + "\n"


def _draw_suite(name: str, rows: Sequence[Row], folder: Path) -> None:
    for measure, label in (("comprehensiveness_column", "AOPC by knockout of columns, logits"), ("auprc", "AUPRC against marked evidence")):
        if any(row.get(measure) is not None for row in rows):
            bars([(m, interval(rows, m, measure)) for m in methods_of(rows)], f"suite {name}", label, folder / f"{name}-{measure}.png")


def _draw_steps(items: Sequence[Annotated], workers: Workers, folder: Path) -> None:
    """Draw the step graphs of some chains, once."""
    page = folder / "beside-human-reasoning.html"
    if not items or page.exists():
        return
    made = {item.id: graph for item, graph in workers.each(partial(step_graph, method=STEPS_BY), items)}
    graphs = [made[item.id] for item in items]
    step_picture(graphs[0], folder / "step-graph.png")
    side_by_side(graphs, page)


def _write(found: Evaluation, reports: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found.folder.mkdir(parents=True, exist_ok=True)
    rows = [row for rows in found.suites.values() for row in rows]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), found.folder / "rows.parquet")
    (found.folder / "report.md").write_text("# Evaluation\n\n" + "\n".join(reports), encoding="utf-8")
