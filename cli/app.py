"""The Typer app: every command group in its own file, registered here."""

from __future__ import annotations

from typing import Annotated

import typer

from tracestore.cli import (
    archive,
    compare,
    debug,
    demo,
    evaluate,
    export,
    ingest,
    load,
    paths,
    query,
    serve,
    store,
    trace,
    validate,
    verify,
    why,
)
from tracestore.cli._errors import GuardedGroup

EPILOG = (
    "Data go to stdout, messages to stderr. Exit codes: 0 ok, 1 unexpected, 2 usage, 3 bad input, 4 unsupported model, "
    "5 store unavailable, 6 partial success, 7 integrity failure, 130 interrupted."
)

app = typer.Typer(
    name="tracestore",
    help="Trace what a language model's attention did, keep it, load it into a graph, ask it in Cypher.",
    epilog=EPILOG,
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from tracestore._version import __version__

        typer.echo(f"tracestore {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", envvar="TRACESTORE_DEBUG", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")] = False,
) -> None:
    """Trace what a language model's attention did, keep it, load it into a graph, ask it in Cypher."""


app.command("demo")(demo.demo)
app.command("trace")(trace.trace)
app.command("load")(load.load)
app.command("ingest")(ingest.ingest)
app.command("why")(why.why)
app.command("paths")(paths.paths)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("assert")(compare.assert_)
app.command("debug")(debug.debug)
app.command("query")(query.query)
app.command("queries")(query.queries)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("validate")(validate.validate)
app.command("eval")(evaluate.evaluate)
app.add_typer(store.app, name="store")
app.add_typer(archive.app, name="archive")


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="tracestore")
