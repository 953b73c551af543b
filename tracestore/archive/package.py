"""Write one package: a Parquet file per table, then the manifest, in a temporary folder that is renamed.

1. Lay the tables of all traces one after the other, each row with the ordinal of its trace (annotations: with its trace id).
2. Write a row group whenever enough rows have come together, so that one trace can be read without the whole file.
3. Have every file on disk, then the manifest, then rename the folder.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.archive.hashing import file_hash, trace_hash
from tracestore.archive.layout import MANIFEST, Layout, new_package_id, open_private, publish, temporary_package, write_private
from tracestore.archive.manifest import FileEntry, Package, PackageKind, TraceEntry, dump_manifest, load_manifest

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one trace on their way into a package; `entry` may be known from an older package."""

    trace_id: str
    tables: Mapping[str, pa.Table]
    entry: TraceEntry

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return sum(table.nbytes for table in self.tables.values())


def make_part(trace_id: str, tables: Mapping[str, pa.Table]) -> Part:
    """Leave out empty tables, count and hash."""
    full = {name: tables[name] for name in schema.ARCHIVE_TABLES if name in tables and tables[name].num_rows}
    return Part(trace_id, full, TraceEntry(trace_id, trace_hash(full), {name: table.num_rows for name, table in full.items()}))


def annotation_schema(table: str) -> pa.Schema:
    """Give the schema of a table in an annotation package: `trace_id`, then `arrow_schema`."""
    import pyarrow as pa

    return pa.schema([pa.field("trace_id", pa.string(), nullable=False), *schema.arrow_schema(table)])


def new_token() -> str:
    """Draw the random end of a package id, by which a writer that was interrupted knows its own package again."""
    return secrets.token_hex(8)


def write_package(layout: Layout, kind: PackageKind, parts: Sequence[Part], *, token: str, replaces: Sequence[str] = ()) -> Package:
    """Write a package and make it visible; one that was published under `token` already is given back.

    Raises OSError when the disk does not take it; nothing is left then.
    """
    done = next((name for name in os.listdir(layout.packages) if name.endswith(f"-{token}") and not name.startswith(".")), None)
    if done is not None:
        return load_manifest(layout.packages / done)
    with temporary_package(layout) as folder:
        files = []
        for table in schema.ARCHIVE_TABLES:
            rows = [(ordinal, part) for ordinal, part in enumerate(parts) if table in part.tables]
            if rows:
                files.append(_write_table(folder, kind, table, rows))
        with layout.lock():
            package_id = new_package_id(layout, token)
            entries = tuple(part.entry for part in parts)
            package = Package(
                package_id, kind, layout.packages / package_id, time.time_ns() // 1_000_000, entries, tuple(files), tuple(replaces)
            )
            write_private(folder / MANIFEST, dump_manifest(package))
            publish(layout, folder, package_id)
        return package


def _write_table(folder: Path, kind: PackageKind, table: str, rows: Iterable[tuple[int, Part]]) -> FileEntry:
    import pyarrow.parquet as pq

    layout_schema = schema.package_schema(table) if kind == "traces" else annotation_schema(table)
    name = f"{table}.parquet"
    count = 0
    with os.fdopen(open_private(folder / name), "wb") as file:
        with pq.ParquetWriter(file, layout_schema, **_options(layout_schema)) as writer:
            waiting: list[pa.Table] = []
            for ordinal, part in rows:
                waiting.append(_with_owner(part, table, ordinal if kind == "traces" else part.trace_id, layout_schema))
                count += waiting[-1].num_rows
                if sum(piece.num_rows for piece in waiting) >= ROW_GROUP_ROWS:
                    _write_group(writer, waiting)
            _write_group(writer, waiting)
        file.flush()
        os.fsync(file.fileno())
    path = folder / name
    return FileEntry(name, table, file_hash(path), path.stat().st_size, count)


def _write_group(writer: Any, waiting: list[pa.Table]) -> None:
    import pyarrow as pa

    if waiting:
        group = pa.concat_tables(waiting).combine_chunks()
        writer.write_table(group, row_group_size=group.num_rows)
        waiting.clear()


def _with_owner(part: Part, table: str, owner: int | str, layout_schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    rows = part.tables[table]
    column: Any = pa.repeat(pa.scalar(owner, layout_schema.field(0).type), rows.num_rows)
    return pa.Table.from_arrays([column, *rows.columns], schema=layout_schema)


def _options(layout_schema: pa.Schema) -> dict[str, Any]:
    """Choose encodings: differences for integers, split bytes for floats, a dictionary for strings; all compressed."""
    import pyarrow as pa

    encodings: dict[str, str] = {}
    dictionaries: list[str] = []
    for field in layout_schema:
        nested = pa.types.is_list(field.type)
        kind = field.type.value_type if nested else field.type
        path = f"{field.name}.list.element" if nested else field.name
        if pa.types.is_integer(kind):
            encodings[path] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(kind):
            encodings[path] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_string(kind):
            dictionaries.append(path)
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": dictionaries or False,
        "column_encoding": encodings,
        "write_page_checksum": True,
    }
