"""`tracestore eval`: how right are traces, against known drivers, marked evidence and removals, beside the baselines?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import say
from tracestore.cli._output import write_json
from tracestore.cli._progress import progress

QUICK_METHODS = (
    "secant.drive",
    "secant.direct",
    "secant.total",
    "secant.score",
    "frozen.direct",
    "random",
    "raw_attention",
    "rollout",
    "gradient_x_input",
    "ifr",
)
QUICK_LIMIT = 2
LEFT_OUT = ("long",)  # of what --quick runs where no suite is named: a minute and more an item


def evaluate(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            "-s",
            help="chase, circuits, prompts, held_out, long, reasoning, commonsense, chase_families (if named) or a .jsonl file.",
        ),
    ] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Names between commas [default: all].", show_default=False)] = None,
    model: options.OptionalModel = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results; a run that was stopped goes on there.")] = Path(
        "evaluation-output"
    ),
    split: Annotated[str, typer.Option("--split", help="report, tuning or all.")] = "report",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Items (sequences, questions) of a suite at most.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few methods, two items of every suite but `long`: minutes.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes that share the items; each loads the model, with one thread.")] = 1,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    as_json: options.Json = False,
) -> None:
    """Evaluate traces on suites: recall of steps, agreement with evidence, faithfulness, cost; tables, pictures, raw rows."""
    from tracestore import api
    from tracestore.evaluate.suites.registry import DEFAULT_SUITES

    if split not in ("report", "tuning", "all"):
        raise typer.BadParameter("use report, tuning or all", param_hint="'--split'")
    tracing.prepare_libraries()
    names = methods.split(",") if methods else list(QUICK_METHODS) if quick else None
    if quick and not suite:
        suite = [name for name in DEFAULT_SUITES if name not in LEFT_OUT]
    with progress("evaluating", "cases") as bar:
        found = api.evaluate(
            suite or None,
            output,
            methods=names,
            model=model or api.DEMO_MODEL,
            load=partial(tracing.load, model or api.DEMO_MODEL, device, dtype),
            jobs=jobs,
            split=None if split == "all" else split,
            limit=limit if limit is not None else QUICK_LIMIT if quick else None,
            progress=bar.advance,
        )
    counts = {name: len({row["id"] for row in rows}) for name, rows in found.suites.items()}
    if as_json:
        write_json(
            {"output": str(output), "cases": counts, "rows": [row for rows in found.suites.values() for row in rows], "steps": found.steps}
        )
    else:
        typer.echo((output / "report.md").read_text(encoding="utf-8"))
    say(f"{sum(counts.values()):,} cases; rows, report and pictures are in {output}")
