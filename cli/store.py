"""`tracestore store ...`: what belongs to the graph store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import resumable, say
from tracestore.cli._output import print_table, write_json
from tracestore.cli._progress import progress
from tracestore.cli.load import report_json, report_text

if TYPE_CHECKING:
    from tracestore.load import RetentionReport

app = typer.Typer(no_args_is_help=True, help="Make, look at and mend the graph store.")

_RESUME = "what is deleted stays deleted; run the same command again to go on"
_BYTES = "A file gives little back before `tracestore store rebuild`; a server uses the space again"

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def init(store: options.Store, as_json: options.Json = False) -> None:
    """Make an empty store, or bring one up to date; harmless on one that is there."""
    from tracestore import api

    with api.open_store(store) as graph:
        applied = list(graph.migrate())
        url = graph.url
    if as_json:
        write_json({"url": url, "migrations": applied})
    else:
        say(f"{url} is ready" + (f"; applied {', '.join(applied)}" if applied else ""))


@app.command()
def status(store: options.Store, as_json: options.Json = False) -> None:
    """Count nodes by label, edges by type and traces by status."""
    from tracestore import api

    with api.open_store(store, read_only=True) as graph:
        found = graph.status()
    if as_json:
        write_json(
            {
                "url": found.url,
                "engine": found.engine,
                "engine_version": found.engine_version,
                "schema_version": found.schema_version,
                "bytes": found.bytes,
                "nodes": dict(found.nodes),
                "edges": dict(found.edges),
                "traces": dict(found.traces),
            }
        )
        return
    typer.echo(f"{found.url}: {found.engine} {found.engine_version}, schema {found.schema_version}, {found.bytes / 1e6:,.1f} MB")
    for kind, counts in (("traces", found.traces), ("nodes", found.nodes), ("edges", found.edges)):
        print_table([kind, "count"], [{kind: name, "count": count} for name, count in counts.items() if count])


@app.command()
def check(store: options.Store, as_json: options.Json = False) -> None:
    """Look for what must not be: partial traces, duplicates, broken conservation. Exit 7 with findings."""
    from tracestore import api
    from tracestore.errors import IntegrityError

    with api.open_store(store, read_only=True) as graph:
        report = graph.check()
    if as_json:
        write_json({"ok": not report.problems, "problems": list(report.problems), "checked": dict(report.checked)})
    else:
        print_table(["check", "looked at"], [{"check": name, "looked at": count} for name, count in report.checked.items()])
        for problem in report.problems:
            say(f"problem: {problem}")
    if report.problems:
        raise IntegrityError(f"the store has {len(report.problems)} problems: `tracestore store rebuild` makes it anew from the archive")
    say("the store is sound")


@app.command()
def migrate(store: options.Store, as_json: options.Json = False) -> None:
    """Apply the schema migrations that are missing."""
    init(store, as_json)


@app.command()
def attach(
    output_id: Annotated[str, typer.Argument(help="Output whose mechanism is wanted.")],
    store: options.Store,
    archive: options.Archive,
    as_json: options.Json = False,
) -> None:
    """Add the mechanism level (every kept edge) of one output, from the archive."""
    from tracestore import api

    with api.open_store(store) as graph:
        report = graph.attach(api.open_archive(archive), output_id)
    if as_json:
        write_json(report_json(report))
    else:
        say(report_text(report))


@app.command()
def delete(
    trace_ids: Annotated[list[str], typer.Argument(help="Traces to delete.", metavar="TRACE_ID...")],
    store: options.Store,
    yes: Yes = False,
    as_json: options.Json = False,
) -> None:
    """Delete traces and remember that: `load` does not bring them back. The embedded engine's bytes go with `store rebuild`."""
    from tracestore import api

    if not yes:
        typer.confirm(f"Delete {len(trace_ids)} traces from the store?", abort=True, err=True)
    with resumable(_RESUME), api.open_store(store, create=False) as graph, progress("deleting", "traces", len(trace_ids)) as reporter:
        report = graph.delete(trace_ids, progress=reporter.advance)
    _say_deleted(report)
    if as_json:
        write_json(_retention_json(report))


@app.command()
def prune(
    store: options.Store,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=0, help="Keep the newest so many (of those with the tag).", show_default=False)
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Only traces older than this: 90s, 15m, 12h, 30d, 2w.", metavar="DURATION", show_default=False),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Only traces whose Items all have it; may be repeated.", metavar="TAG")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; delete nothing.")] = False,
    yes: Yes = False,
    as_json: options.Json = False,
) -> None:
    """Delete the traces that meet everything that is given, and remember that: `load` does not bring them back."""
    from tracestore import api
    from tracestore.load.retention import parse_duration

    if keep_last is None and older_than is None and not tag:
        raise typer.BadParameter("give --keep-last, --older-than or --tag", param_hint="'--keep-last'")
    age = None if older_than is None else parse_duration(older_than)
    with resumable(_RESUME), api.open_store(store, read_only=dry_run, create=False) as graph:
        plan = graph.plan_prune(keep_last=keep_last, older_than_ms=age, tags=tag or ())
        rows = [{"trace_id": one.trace_id, "created_at": one.created_at, "n_tokens": one.n_tokens} for one in plan.goes]
        found: dict[str, object] = {"dry_run": dry_run, "traces": rows, "stays": plan.stays, "shared": plan.shared}
        if plan.shared:
            say(f"{plan.shared:,} traces with the tag stay: an Item without it asked for them too")
        if not dry_run and plan.goes:
            if not yes:
                typer.confirm(f"Delete {len(plan.goes):,} traces and keep {plan.stays:,}?", abort=True, err=True)
            with progress("deleting", "traces", len(plan.goes)) as reporter:
                report = graph.prune(plan, progress=reporter.advance)
            _say_deleted(report)
            found |= _retention_json(report)
    if dry_run or not plan.goes:
        say(
            f"{len(plan.goes):,} traces would go, {plan.stays:,} would stay"
            if dry_run
            else f"nothing to delete; {plan.stays:,} traces stay"
        )
    if as_json:
        write_json(found)
    elif dry_run:
        print_table(["trace_id", "created_at", "n_tokens"], rows)


def _retention_json(report: RetentionReport) -> dict[str, object]:
    return {
        "deleted": report.deleted,
        "seconds": round(report.seconds, 3),
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    }


def _say_deleted(report: RetentionReport) -> None:
    size = f"; {report.bytes_before / 1e6:,.1f} MB became {report.bytes_after / 1e6:,.1f} MB" if report.bytes_before else ""
    say(f"{report.deleted:,} traces deleted in {report.seconds:.1f} s{size}. {_BYTES}")


@app.command()
def rebuild(
    store: options.Store,
    archive: options.Archive,
    level: options.LevelOption = None,
    writers: options.Writers = None,
    as_json: options.Json = False,
) -> None:
    """Make the store anew from the archive, and put it in the old one's place when it is complete."""
    from tracestore import api

    with (
        resumable("the old store is untouched; run the same command again"),
        progress("rebuilding", "edges") as reporter,
    ):
        report = api.rebuild_store(
            api.open_archive(archive),
            store,
            level=level.value if level else None,
            progress=reporter.advance,
            on_plan=lambda plan: reporter.expect(plan.edges),
            writers=writers,
        )
    if as_json:
        write_json(report_json(report))
    else:
        say(report_text(report))
    if report.message:
        say(report.message)
