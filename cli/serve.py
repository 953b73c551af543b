"""`tracestore serve`: the HTTP interface and the page."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tracestore.api import open_archive
from tracestore.cli import _options as options
from tracestore.cli._errors import say
from tracestore.cli._output import write_json
from tracestore.errors import BadInputError


def serve(
    context: typer.Context,
    store: options.Store,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; other machines need the token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 8321,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar="TRACESTORE_TOKEN_FILE",
            help="File that holds the bearer token; needed off loopback.",
            show_default=False,
        ),
    ] = None,
    allow_cypher: Annotated[bool, typer.Option("--allow-cypher", help="Also run ad-hoc Cypher that reads.")] = False,
    archive: options.OptionalArchive = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that a request may take.")] = 30.0,
    max_rows: Annotated[int, typer.Option("--max-rows", min=1, help="Rows of an answer at most.")] = 10_000,
    export_timeout: Annotated[float, typer.Option("--export-timeout", min=0.1, help="Seconds that an export may take.")] = 600.0,
    max_export_traces: Annotated[int, typer.Option("--max-export-traces", min=1, help="Traces of an export at most.")] = 10_000,
    max_export_bytes: Annotated[int, typer.Option("--max-export-bytes", min=1, help="Bytes of an export at most.")] = 10 * 1024**3,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Requests at work at a time; others wait.")] = 8,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request (never its parameters) to stderr.")] = False,
    as_json: options.Json = False,
) -> None:
    """Serve the page and the HTTP interface over a store, read-only, until Ctrl-C. A load may go on meanwhile.

    With `--archive` traces can be exported over HTTP too. An archive that `TRACESTORE_ARCHIVE` names and that is not there is left out,
    with a warning.
    """
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise BadInputError(f"serving needs {', '.join(missing)}: run `pip install 'tracestore[serve]'`")
    from tracestore.serve.run import serve as run
    from tracestore.serve.settings import ServeSettings, read_token

    settings = ServeSettings(
        store=store,
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        allow_cypher=allow_cypher,
        archive=_without_a_missing_one(context, archive),
        timeout_s=timeout,
        max_rows=max_rows,
        export_timeout_s=export_timeout,
        max_export_traces=max_export_traces,
        max_export_bytes=max_export_bytes,
        concurrency=concurrency,
    )

    def started(address: str) -> None:
        if as_json:
            write_json({"url": address})
            sys.stdout.flush()
        else:
            say(f"open {address} in a browser; Ctrl-C stops the server")

    try:
        run(settings, started, access_log=access_log)
    except KeyboardInterrupt:  # how a server is stopped
        say("stopped")


def _without_a_missing_one(context: typer.Context, archive: str | None) -> str | None:
    """Give the archive to export from: what was asked for by option has to be there, what the environment names may be missing.

    The variable is set for other commands as well, `tracestore trace` among them, which makes the folder. An archive that is there and
    damaged is an error all the same.
    """
    if archive is None or options.came_from(context, "archive") != "ENVIRONMENT":
        return archive
    try:
        open_archive(archive)
    except BadInputError as error:
        say(f"warning: TRACESTORE_ARCHIVE: {error}. Serving without it: nothing can be exported")
        return None
    return archive
