"""Formats `parquet` and `csv`: the graph as tables, one file for each label and relationship type.

A star schema: `INFLUENCES.Token.Output`, `KNOCKOUT...` and the like are facts whose `src` and `dst` are the `uid` of rows in `Token`,
`Output` and so on; `trace_no` joins any node to its `Trace`, `output_uid` to its `Output`. docs/duckdb.md holds a query for each question.
uids are those of this export, not of a store. In CSV a list is JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from tracestore.archive.layout import open_private
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.folder import export_folder
from tracestore.export.numbered import NumberedArchive, made_ready
from tracestore.load import LoadPlan

if TYPE_CHECKING:
    import pyarrow as pa


class _Writer(Protocol):
    def write_table(self, table: Any) -> None: ...
    def close(self) -> None: ...


def export_parquet(request: ExportRequest) -> ExportReport:
    """Write Parquet files. See `formats.export_archive`."""
    return export_folder("parquet", request, partial(_write, ".parquet", _parquet_writer))


def export_csv(request: ExportRequest) -> ExportReport:
    """Write CSV files with a header line. See `formats.export_archive`."""
    return export_folder("csv", request, partial(_write, ".csv", _csv_writer))


def _write(
    suffix: str, make: Callable[[Any, pa.Schema], _Writer], request: ExportRequest, plan: LoadPlan, folder: Path
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

    def __init__(self, folder: Path, suffix: str, make: Callable[[Any, pa.Schema], _Writer]) -> None:
        self._folder, self._suffix, self._make = folder, suffix, make
        self._open: dict[str, tuple[_Writer, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for writer, file in self._open.values():
            writer.close()
            file.close()

    def write(self, name: str, table: pa.Table) -> None:
        """Append rows to a table's file."""
        table = _plain(table) if self._suffix == ".csv" else table
        if name not in self._open:
            file = os.fdopen(open_private(self._folder / f"{name}{self._suffix}"), "wb")
            self._open[name] = (self._make(file, table.schema), file)
        self._open[name][0].write_table(table)


def _parquet_writer(file: Any, schema: pa.Schema) -> _Writer:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd")


def _csv_writer(file: Any, schema: pa.Schema) -> _Writer:
    from pyarrow.csv import CSVWriter

    return CSVWriter(file, schema)


def _plain(table: pa.Table) -> pa.Table:
    """Write lists as JSON: CSV has none."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
