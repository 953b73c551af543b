"""`tracestore verify`: knock out what a trace says drove a prediction, and see whether the model agrees."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli import _tracing as tracing
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import print_table, write_json
from tracestore.cli._progress import progress

if TYPE_CHECKING:
    from tracestore.knockouts import KnockoutReport, OutputKnockouts


class Kind(StrEnum):
    """What is removed."""

    column = "column"
    edge = "edge"
    head = "head"
    mean_embedding = "mean-embedding"
    motif = "motif"
    span = "span"
    step = "step"


def verify(
    model: options.Model,
    archive: options.Archive,
    output_id: Annotated[str | None, typer.Argument(help="One stored output.", metavar="OUTPUT", show_default=False)] = None,
    all_outputs: Annotated[bool, typer.Option("--all-outputs", help="Every output in the archive that this model made.")] = False,
    kind: Annotated[
        Kind, typer.Option("--kind", help="What is removed: a token's attention column, one edge of a head, a head, ...")
    ] = Kind.column,
    top: Annotated[int, typer.Option("--top", min=0, help="The sources that the trace ranks first.")] = 10,
    controls: Annotated[int, typer.Option("--random", min=0, help="Also so many other sources, drawn at random.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of that draw.")] = 0,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Only this source, as the table names it: 5, L1.H2, L1.H2:3->7, document:a.", show_default=False),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what was measured before once more.")] = False,
    device: options.Device = "cpu",
    dtype: options.DtypeOption = options.Dtype.float32,
    as_json: options.Json = False,
) -> None:
    """Remove sources on the real model, measure, and append the effects to the archive; `load` brings them into the graph."""
    from tracestore import api
    from tracestore.knockouts import Choice, PartialVerifyError, verify_all
    from tracestore.knockouts import verify as verify_one

    if (output_id is None) != all_outputs:
        raise typer.BadParameter("name one output, or give --all-outputs", param_hint="'OUTPUT'")
    choice = Choice(kind.value, top, controls, seed, tuple(source or ()), again)
    choice.check()
    found = api.open_archive(archive)
    loaded = tracing.load(model, device, dtype)
    failed: PartialVerifyError | None = None
    with resumable("what was measured is in the archive; run the same command again to go on"):
        if output_id is not None:
            with progress("verifying", "runs") as shown:
                report = verify_one(loaded, found, output_id, choice, progress=shown.advance)
        else:
            total = sum(entry.rows.get("Output", 0) for package in found.packages() for entry in package.traces)
            with progress("verifying", "outputs", total) as shown:
                try:
                    report = verify_all(loaded, found, choice, progress=shown.advance)
                except PartialVerifyError as error:
                    report, failed = error.report, error
    if as_json:
        write_json(report.to_dict())
    else:
        for one in report.outputs:
            _print(one)
    _say_summary(report)
    if failed is not None:
        raise failed


def _print(found: OutputKnockouts) -> None:
    from tracestore.coloured import shown

    row = found.row
    against = f" against '{shown(row['foil_text'], row['foil_token_id'])}'" if row["gauge"] == "foil" else f" ({row['gauge']})"
    title = f"'{shown(row['text'], row['token_id'])}' {found.output_id}: explained {row['explained']:.3f}{against}"
    if not found.knockouts:
        sys.stdout.write(f"{title}: nothing of kind {found.kind} can be removed\n")
        return
    rows = [
        {
            "source": knockout.source.name,
            "text": "" if knockout.source.text is None else shown(knockout.source.text, 0),
            "estimate": knockout.estimate,
            "effect": knockout.effect,
            "log p": knockout.effect_logp,
            "agrees": knockout.agrees,
            "control": knockout.random,
            "known before": knockout.known,
        }
        for knockout in found.knockouts
    ]
    print_table(["source", "text", "estimate", "effect", "log p", "agrees", "control", "known before"], rows, title=title)


def _say_summary(report: KnockoutReport) -> None:
    every = [knockout for output in report.outputs for knockout in output.knockouts]
    say(
        f"{report.measured:,} measured, {report.known:,} known before"
        + (f"; {report.skipped:,} outputs of other models" * bool(report.skipped))
    )
    if every:
        agree = sum(knockout.agrees for knockout in every)
        say(
            f"the model agrees with the sign of the trace in {agree:,} of {len(every):,}; "
            "effect: what is explained without the source, less what it is with it"
        )
