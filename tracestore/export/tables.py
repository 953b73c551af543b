"""Formats `parquet` and `csv`: the graph as tables, one file for each label and relationship type.

A star schema: `INFLUENCES.Token.Output`, `KNOCKOUT...` and the like are facts whose `src` and `dst` are the `uid` of rows in `Token`,
`Output` and so on; `trace_no` joins any node to its `Trace`, `output_uid` to its `Output`. docs/duckdb.md holds a query for each question.
uids are those of this export, not of a store. In CSV a list is JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from tracestore import schema
from tracestore.archive.layout import open_private
from tracestore.errors import BadInputError
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.folder import export_folder
from tracestore.export.numbered import NumberedArchive, made_ready
from tracestore.load import LoadPlan
from tracestore.store.base import LoadLevel
from tracestore.store.staging import node_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive import Archive


class Writer(Protocol):
    """What appends tables to a file."""

    def write_table(self, table: Any) -> None: ...
    def close(self) -> None: ...


def export_parquet(request: ExportRequest) -> ExportReport:
    """Write Parquet files. See `formats.export_archive`."""
    return export_folder("parquet", request, partial(_write, ".parquet", parquet_writer))


def export_csv(request: ExportRequest) -> ExportReport:
    """Write CSV files with a header line. See `formats.export_archive`."""
    return export_folder("csv", request, partial(_write, ".csv", csv_writer))


def _write(
    suffix: str, make: Callable[[Any, pa.Schema], Writer], request: ExportRequest, plan: LoadPlan, folder: Path
) -> tuple[int, int, int]:
    rows = NumberedArchive(request.archive, plan.level, request.since)
    nodes = edges = 0
    with _Files(folder, suffix, make) as files:
        for parts in (rows.traces(), rows.annotations()):
            for _, staged in parts:
                for name, table in made_ready(staged).items():
                    if not name.startswith("OF."):  # follows from trace_no and output_uid
                        files.write(name, table)
                nodes += staged.node_count
                edges += staged.edge_count
                if request.progress is not None:
                    request.progress(staged.edge_count)
    return len(rows.numbers), nodes, edges


class _Files:
    """Files of one folder, one for each table, made with the table's first rows."""

    def __init__(self, folder: Path, suffix: str, make: Callable[[Any, pa.Schema], Writer]) -> None:
        self._folder, self._suffix, self._make = folder, suffix, make
        self._open: dict[str, tuple[Writer, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for writer, file in self._open.values():
            writer.close()
            file.close()

    def write(self, name: str, table: pa.Table) -> None:
        """Append rows to a table's file."""
        table = plain_table(table) if self._suffix == ".csv" else table
        if name not in self._open:
            file = os.fdopen(open_private(self._folder / f"{name}{self._suffix}"), "wb")
            self._open[name] = (self._make(file, table.schema), file)
        self._open[name][0].write_table(table)


TABLES: Final = (
    *(node.label for node in schema.NODES),
    *(name for name, (edge, _, _) in schema.EDGE_TABLES.items() if edge.archived),
)
"""The tables of an export; OF follows from trace_no and output_uid."""


def table_rows(archive: Archive, name: str, level: LoadLevel, since: int | None, only: Collection[str] | None) -> Iterator[pa.Table]:
    """Give the rows of one table in pieces, with the uids that an export of all tables gives them; the first piece may be empty.

    Only that table is read (and State for Output, whose `mechanism` follows from it). Raises BadInputError for an unknown name.
    """
    if name not in TABLES:
        raise BadInputError(f"there is no table of this name; there are {', '.join(TABLES)}")
    beside = ("State",) if name == "Output" and level == "mechanism" else ()
    rows = NumberedArchive(archive, level, since, only, tables=(name, *beside))
    yield empty_table(name)
    if level == "mechanism" or schema.table_level(name) == "summary":
        for parts in (rows.traces(), rows.annotations()):
            for _, staged in parts:
                found = made_ready(staged).get(name)
                if found is not None:
                    yield found


def empty_table(name: str) -> pa.Table:
    """Give a table of an export without rows."""
    import pyarrow as pa

    kinds = {c.name: c.kind for c in schema.table_columns(name, store=True)}
    names = node_columns(name) if name in schema.NODE_BY_LABEL else ("src", "dst", *kinds)
    return pa.schema([pa.field(n, schema.arrow_type(kinds.get(n, "ref"))) for n in names]).empty_table()


def parquet_writer(file: Any, schema: pa.Schema) -> Writer:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd")


def csv_writer(file: Any, schema: pa.Schema) -> Writer:
    from pyarrow.csv import CSVWriter

    return CSVWriter(file, schema)


def plain_table(table: pa.Table) -> pa.Table:
    """Write lists as JSON: CSV has none."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
