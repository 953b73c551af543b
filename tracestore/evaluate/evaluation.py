"""Evaluate suites into a folder: rows as they are made, then Parquet, a Markdown report and pictures.

OUT/<suite>.jsonl     one line a case, appended; a killed run goes on from it
OUT/<suite>-steps.jsonl   one line a chain whose step graph was compared with a proof, likewise
OUT/rows.parquet      every row of this call
OUT/report.md         tables
OUT/*.png, *.html     pictures
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.figures import bars, side_by_side, step_picture
from tracestore.evaluate.human import StepGraph, agreement, step_graph, summary
from tracestore.evaluate.intervals import mean_interval
from tracestore.evaluate.methods import Method
from tracestore.evaluate.report import interval, methods_of, suite_report
from tracestore.evaluate.runner import Row, RunSettings, append_rows, read_rows, run_suite
from tracestore.evaluate.suites.registry import Suite, suite_cases
from tracestore.extract.loading import LoadedModel

OURS: Final = "secant.direct"
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
    load: Callable[[], LoadedModel],
    split: str | None = "report",
    limit: int | None = None,
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate suites and write everything into `folder`. `split` None takes tuning items as well."""
    found = Evaluation(folder)
    names = tuple(method.name for method in methods)
    reports = []
    for suite in suites:
        settings = RunSettings(suite.name, "" if suite.items is None else model, names, suite.faithful, split)
        path = folder / f"{suite.name}.jsonl"
        known = {row["id"] for row in read_rows(path, settings)}
        cases = suite_cases(suite, load, split=split, limit=limit, known=known)
        rows = run_suite(cases, methods, settings, path, progress=progress)
        found.suites[suite.name] = rows
        if rows:
            ours = OURS if OURS in names else names[0]
            reports.append(suite_report(suite.name, suite.about, rows, ours))
            _draw_suite(suite.name, rows, folder)
        if suite.proofs and suite.items is not None:
            chosen = [item for item in suite.items() if item.proof and split in (None, item.split)]
            found.steps = _compare_steps(load, chosen[:limit], replace(settings, methods=(STEPS_BY,)), folder)
            reports.append(steps_report(found.steps, len({row["id"] for row in found.steps})))
    _write(found, reports)
    return found


def _compare_steps(load: Callable[[], LoadedModel], items: Sequence[Annotated], settings: RunSettings, folder: Path) -> list[Row]:
    """Compare step graphs with proofs, keeping each; the first ones are drawn once."""
    path = folder / f"{settings.suite}-steps.jsonl"
    known = {row["id"] for row in read_rows(path, settings)}
    drawn: list[StepGraph] = []
    page = folder / "beside-human-reasoning.html"
    for number, item in enumerate(items):
        wanted = number < PICTURES and not page.exists()
        if item.id in known and not wanted:
            continue
        graph = step_graph(load(), item, STEPS_BY)
        if item.id not in known:
            append_rows(path, settings, agreement(graph))
        if wanted:
            drawn.append(graph)
            if len(drawn) == min(PICTURES, len(items)):
                _draw_steps(drawn, folder)
    return list(read_rows(path, settings))


def steps_report(rows: Sequence[Row], count: int) -> str:
    """Report the agreement of step graphs with proofs."""
    lines = [
        f"## Step graph against the person's proof ({count} chains)\n",
        "| order of the sources | first is in the proof | AUPRC |",
        "|---|---|---|",
    ]
    for order in dict.fromkeys(row["order"] for row in rows):
        top, area = (mean_interval(summary(rows, order, measure)) for measure in ("top1", "auprc"))
        lines.append(f"| {order} | {top} | {area} |")
    return "\n".join(lines) + "\n"


def _draw_suite(name: str, rows: Sequence[Row], folder: Path) -> None:
    for measure, label in (("comprehensiveness_column", "AOPC by knockout of columns, logits"), ("auprc", "AUPRC against marked evidence")):
        if any(row.get(measure) is not None for row in rows):
            bars([(m, interval(rows, m, measure)) for m in methods_of(rows)], f"suite {name}", label, folder / f"{name}-{measure}.png")


def _draw_steps(graphs: Sequence[StepGraph], folder: Path) -> None:
    if graphs:
        side_by_side(graphs, folder / "beside-human-reasoning.html")
        step_picture(graphs[0], folder / "step-graph.png")


def _write(found: Evaluation, reports: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found.folder.mkdir(parents=True, exist_ok=True)
    rows = [row for rows in found.suites.values() for row in rows]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), found.folder / "rows.parquet")
    (found.folder / "report.md").write_text("# Evaluation\n\n" + "\n".join(reports), encoding="utf-8")
