"""Comparisons and damage for tests of the archive."""

from __future__ import annotations

from pathlib import Path

from tracestore import schema
from tracestore.archive import Archive, Package
from tracestore.model import Trace


def assert_same_trace(found: Trace, expected: Trace) -> None:
    """Compare every table of the schema, rows in order, types and all."""
    assert found.trace_id == expected.trace_id
    for name in schema.ARCHIVE_TABLES:
        assert found.table(name).schema.equals(schema.arrow_schema(name)), name
        assert found.table(name).equals(expected.table(name)), name


def flip_byte(path: Path, offset: int) -> None:
    """Change one byte of a file (a negative offset counts from its end)."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x41
    path.write_bytes(bytes(data))


def fresh(archive: Archive) -> Archive:
    """Open the same archive without anything remembered."""
    return Archive(archive.path, create=False)


def table_path(package: Package, table: str) -> Path:
    return package.path / f"{table}.parquet"
