"""`tracestore query` and `tracestore queries`: named queries of the catalogue, and ad-hoc Cypher."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracestore.cli import _options as options
from tracestore.cli._errors import say
from tracestore.cli._output import print_table, write_json, write_rows
from tracestore.errors import QueryError

if TYPE_CHECKING:
    from tracestore.query.catalogue import CatalogueEntry

_NAME = re.compile(r"[A-Za-z_][\w-]*")


def query(
    what: Annotated[
        str, typer.Argument(help="Name of a query (see `tracestore queries`), a Cypher statement, or `-` for stdin.", metavar="NAME|CYPHER")
    ],
    store: options.Store,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="A parameter; may be repeated.", metavar="NAME=VALUE")] = None,
    output_format: Annotated[options.Format, typer.Option("--format", "-f", help="How the rows are written.")] = options.Format.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Rows at most, for Cypher [default: 10 000].", show_default=False)
    ] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0.001, help="Seconds that it may take.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """Ask the store: a named query, or one read-only Cypher statement."""
    from tracestore import api

    text = sys.stdin.read().strip() if what == "-" else what.strip()
    given = _parameters(param or [])
    with api.open_store(store, read_only=True) as graph:
        if _NAME.fullmatch(text):
            result = graph.run_named(text, given, max_rows=limit, timeout_s=timeout)
        else:
            result = graph.run_cypher(text, {name: _typed(value) for name, value in given.items()}, max_rows=limit, timeout_s=timeout)
    write_rows(result.table, options.Format.json if as_json else output_format, output)
    if result.truncated:
        say(f"truncated: only the first {result.table.num_rows:,} rows are shown; --limit asks for more")


def queries(
    name: Annotated[str | None, typer.Argument(help="Show one query in full.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """List the named queries, or show one with its parameters and columns."""
    from tracestore.query.catalogue import catalogue, entry

    if name is not None:
        found = entry(name)
        if as_json:
            write_json(_described(found) | {"cypher": found.cypher})
        else:
            _show(found)
        return
    entries = list(catalogue().values())
    if as_json:
        write_json([_described(e) for e in entries])
    else:
        print_table(["query", "question"], [{"query": e.name, "question": e.header.question} for e in entries])


def _parameters(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter("write it as NAME=VALUE", param_hint="'--param'")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint="'--param'")
        found[name] = value
    return found


def _typed(value: str) -> Any:
    """Read a parameter of ad-hoc Cypher: a JSON value where it is one, else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value
    except RecursionError:
        raise QueryError("a parameter is nested too deeply") from None


def _described(found: CatalogueEntry) -> dict[str, Any]:
    header = found.header
    return {
        "name": header.name,
        "question": header.question,
        "parameters": [
            {"name": p.name, "type": p.type, "required": p.required, "default": p.default, "choices": list(p.choices), "doc": p.doc}
            for p in header.parameters
        ],
        "one_of": [list(group) for group in header.needs],
        "columns": [{"name": c.name, "type": c.type, "nullable": c.nullable, "doc": c.doc} for c in header.columns],
        "order": [f"{'-' if key.descending else ''}{key.column}" for key in header.order],
        "seeks": header.seeks,
        "merge": header.merge,
    }


def _show(found: CatalogueEntry) -> None:
    header = found.header
    typer.echo(f"{header.name}: {header.question}\n")
    print_table(["parameter", "meaning"], [{"parameter": p.signature, "meaning": p.doc} for p in header.parameters])
    for group in header.needs:
        typer.echo(f"exactly one of {', '.join(group)} is needed\n")
    print_table(["column", "type", "meaning"], [{"column": c.name, "type": c.type, "meaning": c.doc} for c in header.columns])
    typer.echo(f"starts from: {header.seeks}\n\n{found.cypher.rstrip()}")
