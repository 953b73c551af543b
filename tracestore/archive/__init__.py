"""The archive: packages of Parquet that hold every trace, written once, verified, forgotten and compacted."""

from __future__ import annotations

from tracestore.archive.archive import Archive
from tracestore.archive.maintenance import CompactReport
from tracestore.archive.manifest import Package
from tracestore.archive.reader import PackageGoneError, PackageTables
from tracestore.archive.redact import redact, redact_item, redacted_item_id, redacted_trace_id
from tracestore.archive.verify import VerifyReport
from tracestore.archive.writer import ArchiveWriter, appended_local, item_local, item_table

__all__ = [
    "Archive",
    "ArchiveWriter",
    "CompactReport",
    "Package",
    "PackageGoneError",
    "PackageTables",
    "VerifyReport",
    "appended_local",
    "item_local",
    "item_table",
    "redact",
    "redact_item",
    "redacted_item_id",
    "redacted_trace_id",
]
