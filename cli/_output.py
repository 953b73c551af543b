"""Rows to stdout or a file: table, json, ndjson, csv, parquet."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tracestore.cli._options import Format
from tracestore.errors import BadInputError
from tracestore.query.rows import plain

if TYPE_CHECKING:
    import pyarrow as pa


def write_json(value: object) -> None:
    """Write one JSON value to stdout; numbers that JSON does not know become null."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2))


def write_rows(table: pa.Table, output_format: Format, path: Path | None = None) -> None:
    """Write a table to stdout, or to `path`.

    Raises BadInputError where parquet would go to a terminal.
    """
    if output_format is Format.parquet:
        _write_parquet(table, path)
        return
    if output_format is Format.table and path is None:
        print_table(table.column_names, table.to_pylist())
        return
    text = _render(table, output_format)
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Print rows as a table: numbers to the right, text with its control characters made visible."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    numeric = {name for name in columns if all(isinstance(row[name], int | float | None) for row in rows)}
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(row[name])) for name in columns))
    # Not a terminal: wide enough that nothing is folded or cut.
    width = None if sys.stdout.isatty() else 240
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def cell_text(value: object) -> str:
    """Give the text of a table's cell; control characters are escaped, so that stored text cannot steer a terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        shown = ", ".join(cell_text(v) for v in value[:8])
        return f"{shown}, ... ({len(value)})" if len(value) > 8 else shown
    return visible(str(value))


def visible(text: str) -> str:
    """Escape what is not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _render(table: pa.Table, output_format: Format) -> str:
    if output_format is Format.json:
        return json.dumps(plain(table.to_pylist()), ensure_ascii=False, indent=2) + "\n"
    if output_format is Format.ndjson:
        return "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in table.to_pylist())
    return _csv(table)


def _csv(table: pa.Table) -> str:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([json.dumps(plain(v), ensure_ascii=False) if isinstance(v, list | dict) else v for v in row.values()])
    return buffer.getvalue()


def _write_parquet(table: pa.Table, path: Path | None) -> None:
    import pyarrow.parquet as pq

    if path is not None:
        pq.write_table(table, path)
        return
    if sys.stdout.isatty():
        raise BadInputError("parquet is binary: name a file with --output, or send stdout to a file")
    pq.write_table(table, sys.stdout.buffer)
