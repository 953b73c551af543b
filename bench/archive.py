"""Archive: write and read speed, bytes an edge, and how listing scales. Run: python -m bench.archive [--traces 64] [--packages 800]."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.support.synthetic import make_traces
from tracestore import schema
from tracestore.archive import Archive
from tracestore.archive.layout import write_private
from tracestore.archive.manifest import FileEntry, Package, TraceEntry, dump_manifest
from tracestore.model import Trace


def edges_of(trace: Trace) -> int:
    """Count the edges of a trace that an archive holds."""
    return sum(table.num_rows for name, table in trace.tables.items() if name in schema.EDGE_TABLES)


def write_and_read(folder: Path, count: int) -> None:
    """Time one archive of large traces."""
    traces = make_traces(count, n_tokens=64, n_layers=8, n_heads=8, keep=0.99, max_edges=20_000)
    edges, size = sum(map(edges_of, traces)), sum(table.nbytes for trace in traces for table in trace.tables.values())
    archive = Archive(folder / "large")
    start = time.perf_counter()
    archive.write(traces)
    seconds = time.perf_counter() - start
    stored = sum(package.bytes for package in archive.packages())
    speed = f"{size / 2**20 / seconds:.0f} MB/s in memory, {edges / seconds:,.0f} edges/s"
    print(f"- write: {count} traces, {edges:,} edges in {seconds:.2f} s: {speed}")
    print(f"- on disk: {stored / 2**20:.1f} MB, {stored / edges:.1f} bytes an edge, nodes included, {stored / size:.2f} of memory")
    levels: tuple[schema.Level, ...] = ("mechanism", "summary")
    for level in levels:
        again = Archive(folder / "large")
        start = time.perf_counter()
        rows = [bundle.rows for package in again.packages() for bundle in again.bundles(package, level=level)]
        print(f"- read, level {level}: {sum(rows):,} rows in {time.perf_counter() - start:.2f} s, hashes checked")
    start = time.perf_counter()
    Archive(folder / "large").read_trace(traces[1].trace_id)
    print(f"- read: one trace of a fresh archive in {(time.perf_counter() - start) * 1000:.0f} ms")
    start = time.perf_counter()
    report = archive.verify()
    print(f"- verify: deep in {time.perf_counter() - start:.2f} s, {len(report.problems)} problems")


def listing(folder: Path, packages: int) -> None:
    """Time the anti-join on the manifests of many packages (their tables are not there)."""
    archive = Archive(folder / "many")
    rows = dict.fromkeys(schema.ARCHIVE_TABLES[:20], 100)
    for number in range(packages):
        name = f"20260101T000000.{number:06d}-000000-{number:016x}"
        entries = tuple(TraceEntry(f"{number:016x}{ordinal:016x}", "0" * 64, rows) for ordinal in range(64))
        files = tuple(FileEntry(f"{table}.parquet", table, "0" * 64, 1000, 6400) for table in rows)
        path = archive.path / "packages" / name
        path.mkdir()
        write_private(path / "manifest.json", dump_manifest(Package(name, "traces", path, 0, entries, files)))
    wanted = [f"{number:016x}{ordinal:016x}" for number in range(packages) for ordinal in range(65)]
    for what in ("first", "again"):
        start = time.perf_counter()
        found = len(archive.missing(wanted))
        print(f"- missing: {len(wanted)} ids against {packages * 64} traces, {what}: {time.perf_counter() - start:.3f} s, {found} missing")
    archive.write(make_traces(1))
    start = time.perf_counter()
    archive.missing(wanted[:1])
    print(f"- missing: one id after another package came: {time.perf_counter() - start:.3f} s")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=64)
    parser.add_argument("--packages", type=int, default=800)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_and_read(Path(folder), options.traces)
        listing(Path(folder), options.packages)


if __name__ == "__main__":
    main()
