"""`tracestore export`: traces in other forms."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import write_json
from tracestore.cli._progress import progress
from tracestore.export.formats import FORMATS


def export(
    archive: options.Archive,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it must not exist yet.", show_default=False)],
    output_format: Annotated[
        str, typer.Option("--format", "-f", help=f"What to write: {', '.join(sorted(FORMATS))}.", metavar="FORMAT", show_default=False)
    ],
    level: options.LevelOption = None,
    since: Annotated[
        datetime | None, typer.Option("--since", help="Only what was archived at this time or later, for increments.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the archive's traces in another form, whole or not at all.

    `parquet` and `csv`: a table for each label and relationship type. `ndjson`: a line for each prediction. `graphml`, `node-link`: a graph
    for each trace. `neuronpedia`: an attribution graph for each prediction. `span-annotations`: scores for the OpenTelemetry spans that
    items came from. `neo4j-import`: files for the bulk import of a new server.
    """
    if output_format not in FORMATS:
        raise typer.BadParameter(f"use one of {', '.join(sorted(FORMATS))}", param_hint="'--format'")
    from tracestore import api

    with resumable("nothing was written; run the same command again"), progress("exporting", "edges") as reporter:
        report = api.export_archive(
            api.open_archive(archive),
            output_format,
            output,
            level=level.value if level else None,
            since=since,
            progress=reporter.advance,
            on_plan=lambda plan: reporter.expect(plan.edges),
        )
    rate = f" ({report.edges / report.seconds:,.0f} edges/s)" if report.edges and report.seconds > 0 else ""
    say(
        f"{report.traces:,} traces, {report.nodes:,} nodes, {report.edges:,} edges, {report.bytes / 1e6:,.1f} MB "
        f"in {report.path}, {report.seconds:.1f} s{rate}"
    )
    if report.message:
        say(report.message)
    if as_json:
        write_json(
            {
                "format": report.format,
                "path": str(report.path),
                "level": report.level,
                "traces": report.traces,
                "nodes": report.nodes,
                "edges": report.edges,
                "bytes": report.bytes,
                "seconds": round(report.seconds, 3),
                "commands": list(report.commands),
            }
        )
        return
    for command in report.commands:
        typer.echo(command)
