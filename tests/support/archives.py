"""Comparisons and damage for tests of the archive."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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


def change_manifest(folder: Path, **changes: Any) -> None:
    """Change members of a package's manifest and give it a right hash again, as a program with an error would."""
    path = folder / "manifest.json"
    value = {**json.loads(path.read_bytes()), **changes}
    del value["sha256"]
    body = json.dumps(value, separators=(",", ":"))
    path.write_text('{"sha256":"' + hashlib.sha256(body.encode()).hexdigest() + '",' + body[1:] + "\n")


def fresh(archive: Archive) -> Archive:
    """Open the same archive without anything remembered."""
    return Archive(archive.path, create=False)


def table_path(package: Package, table: str) -> Path:
    return package.path / f"{table}.parquet"
