"""Hashes of a trace's content that do not depend on how Arrow happens to hold it (chunks, offsets, padding, bytes under nulls).

1. For every non-empty table in the schema's order: its name, then every column's name.
2. For a column: its length, the bitmap of nulls as one byte a row (only where there are nulls), the lengths of strings and lists, and the
   bytes of the values, with nulls filled.
3. SHA-256 over it all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tracestore import schema

if TYPE_CHECKING:
    import pyarrow as pa


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def trace_hash(tables: Mapping[str, pa.Table]) -> str:
    """Hash the tables of one trace (without a `trace` column)."""
    digest = hashlib.sha256()
    for name in schema.ARCHIVE_TABLES:
        table = tables.get(name)
        if table is None or table.num_rows == 0:
            continue
        digest.update(f"table {name} {table.num_rows}\n".encode())
        for column in table.column_names:
            digest.update(f"column {column}\n".encode())
            chunked = table.column(column)
            array: Any = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
            _update(digest, array)
    return digest.hexdigest()


def _update(digest: _Hash, array: Any) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = "list" if pa.types.is_list(array.type) else str(array.type)  # how the elements of a list are named differs by writer
    digest.update(f"{kind} {len(array)} {array.null_count}\n".encode())
    if array.null_count:
        digest.update(_fixed(array.is_valid().cast(pa.uint8())))
    if kind == "list":
        digest.update(_fixed(pc.list_value_length(array).fill_null(0).cast(pa.int32())))
        _update(digest, pc.list_flatten(array))
        return
    if pa.types.is_string(array.type):
        filled = array.fill_null("") if array.null_count else array
        digest.update(_fixed(pc.binary_length(filled)))
        digest.update(_string_bytes(filled))
        return
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    digest.update(_fixed(array.fill_null(0) if array.null_count else array))


def _fixed(array: Any) -> Any:
    """Give the value bytes of an array of numbers."""
    width = array.type.bit_width // 8
    buffer = array.buffers()[1]
    return b"" if buffer is None else memoryview(buffer)[array.offset * width : (array.offset + len(array)) * width]


def _string_bytes(array: Any) -> Any:
    """Give the bytes of all strings, one after the other."""
    _, offsets, data = array.buffers()
    if data is None or len(array) == 0:
        return b""
    positions = memoryview(offsets).cast("i")
    return memoryview(data)[positions[array.offset] : positions[array.offset + len(array)]]


def file_hash(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
