"""`tracestore archive ...`: what belongs to the archive alone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import print_table, write_json

app = typer.Typer(no_args_is_help=True, help="Look at, check and tidy the archive.")

LIST_COLUMNS = ("trace_id", "model_id", "n_tokens", "outputs", "method", "closure", "created_at", "text")


@app.command("list")
def list_(
    archive: options.Archive,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Traces at most, newest last.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """List the traces in the order in which they were written."""
    from tracestore import api

    source = api.open_archive(archive)
    rows: list[dict[str, Any]] = []
    for package in source.packages():
        for bundle in source.bundles(package, tables=("Trace", "Output")):
            outputs = bundle.tables.get("Output")
            counts = Counter(() if outputs is None else outputs["trace"].to_pylist())
            for row in bundle.tables["Trace"].to_pylist():
                rows.append({"outputs": counts[row["trace"]], "package_id": bundle.package_id, **row})
    shown = rows[-limit:] if limit is not None else rows
    if as_json:
        write_json([{name: row[name] for name in (*LIST_COLUMNS, "package_id")} for row in shown])
    else:
        print_table(LIST_COLUMNS, [row | {"text": _short(row["text"]), "created_at": _when(row["created_at"])} for row in shown])
    say(f"{len(rows):,} traces in {len(source.packages()):,} packages, {len(source.forgotten()):,} forgotten")
    for problem in source.problems():
        say(f"problem: {problem}")


@app.command()
def verify(
    archive: options.Archive,
    quick: Annotated[bool, typer.Option("--quick", help="Files only, not every trace's content.")] = False,
    as_json: options.Json = False,
) -> None:
    """Compare every package with its manifest. Exit 7 when something is damaged."""
    from tracestore import api
    from tracestore.errors import ArchiveError

    report = api.open_archive(archive).verify(deep=not quick)
    if as_json:
        write_json(
            {
                "ok": report.ok,
                "problems": list(report.problems),
                "notes": list(report.notes),
                "packages": report.packages,
                "traces": report.traces,
                "bytes": report.bytes,
                "deep": report.deep,
            }
        )
    for note in report.notes:
        say(f"note: {note}")
    for problem in report.problems:
        say(f"problem: {problem}")
    say(f"{report.packages:,} packages, {report.traces:,} traces, {report.bytes / 1e6:,.1f} MB looked at")
    if not report.ok:
        raise ArchiveError(f"the archive has {len(report.problems)} problems; what is sound can still be read and loaded")


@app.command()
def forget(
    trace_ids: Annotated[list[str], typer.Argument(help="Traces to forget for good.", metavar="TRACE_ID...")],
    archive: options.Archive,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Forget traces for good: they are not traced or loaded again. Their bytes go with `archive compact`."""
    from tracestore import api

    if not yes:
        typer.confirm(f"Forget {len(trace_ids)} traces for good?", abort=True, err=True)
    count = api.open_archive(archive).forget(trace_ids)
    if as_json:
        write_json({"forgotten": count})
    say(f"{count} traces forgotten; `tracestore archive compact` removes their bytes, `tracestore store delete` takes them out of a store")


@app.command()
def compact(archive: options.Archive, as_json: options.Json = False) -> None:
    """Rewrite packages that hold forgotten traces, merge small ones, delete what killed processes left."""
    from tracestore import api

    with resumable("nothing is lost; run the same command again to go on"):
        report = api.open_archive(archive).compact()
    if as_json:
        write_json(
            {
                "removed_traces": report.removed_traces,
                "packages_before": report.packages_before,
                "packages_after": report.packages_after,
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
                "leftovers": report.leftovers,
                "problems": list(report.problems),
            }
        )
    for problem in report.problems:
        say(f"problem: {problem}")
    say(
        f"{report.packages_before:,} packages became {report.packages_after:,}, {report.bytes_before / 1e6:,.1f} MB became "
        f"{report.bytes_after / 1e6:,.1f} MB, {report.removed_traces:,} traces removed"
    )


def _short(text: str | None, width: int = 60) -> str | None:
    return text if text is None or len(text) <= width else f"{text[: width - 3]}..."


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
