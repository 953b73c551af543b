"""Format `neo4j-import`: files for `neo4j-admin database import full`, the fastest way to fill a new Neo4j server.

1. Number the traces from 1, package by package; turn local numbers into uids; make OF edges: exactly what a load would send.
2. Append annotations (further input lines, knockouts), each row once.
3. Add the store's bookkeeping, so that the server knows afterwards what it holds: every trace READY with its row counts, the highest
   number given out, a mark that an import must be completed on the first opening.
4. Write the tool's options into an argument file; the command that is shown names it.

Memory does not grow with the archive: a bundle of rows at a time, and the counts of annotated traces.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.archive import PackageGoneError
from tracestore.archive.layout import write_private
from tracestore.errors import BadInputError
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.folder import new_folder
from tracestore.export.import_csv import LIST_SEPARATOR, CsvFolder, has_text, import_header
from tracestore.load import LoadPlan, plan_empty
from tracestore.store.base import LoadLevel, TraceBundle
from tracestore.store.neo4j.importing import COUNTER_HEADER, RECORD_HEADER, counter_rows, record_rows
from tracestore.store.staging import Stager, counts_by_trace, of_edges, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive import Archive

ARGUMENTS: Final = "import.args"
_BUNDLE_ROWS: Final = 250_000
_ANNOTATION_ROWS: Final = 50_000
_ROUNDS: Final = 5


def export_neo4j_import(request: ExportRequest) -> ExportReport:
    """Write the files and say with which command they become a database. See `formats.export_archive`."""
    started = time.perf_counter()
    target = request.target.expanduser().absolute()
    plan = plan_empty(request.archive, level=request.level)
    if not plan.traces:
        raise BadInputError(f"the archive {request.archive.path} holds no traces: there is nothing to export")
    if request.on_plan is not None:
        request.on_plan(plan)
    for attempt in range(_ROUNDS):
        try:
            with new_folder(target) as folder:
                traces, nodes, edges = _write(request, plan, folder)
                size = sum(path.stat().st_size for path in folder.iterdir())
            break
        except PackageGoneError:  # compacted while it was read: begin anew
            if attempt == _ROUNDS - 1:
                raise
    command = f"cd {shlex.quote(str(target))} && neo4j-admin database import full neo4j @{ARGUMENTS}"
    seconds = time.perf_counter() - started
    return ExportReport("neo4j-import", target, plan.level, traces, nodes, edges, size, seconds, (command,), plan.message)


def _write(request: ExportRequest, plan: LoadPlan, folder: Path) -> tuple[int, int, int]:
    with CsvFolder(folder) as files:
        export = _Export(request, plan.level, files)
        export.write_traces()
        export.write_annotations()
        export.write_bookkeeping()
    write_private(folder / ARGUMENTS, "".join(f"{line}\n" for line in _arguments(files.names)).encode())
    return len(export.numbers), export.nodes, export.edges


class _Export:
    """One run: the number of every trace, and what was written so far."""

    def __init__(self, request: ExportRequest, level: LoadLevel, files: CsvFolder) -> None:
        self._archive: Archive = request.archive
        self._level = level
        self._files = files
        self._progress = request.progress
        self._annotated = {name for package in request.archive.annotations() for name in package.trace_ids}
        self._open_counts: dict[str, Counter[str]] = {}  # of annotated traces: more rows may come
        self.numbers: dict[str, int] = {}
        self.nodes = 0
        self.edges = 0

    def write_traces(self) -> None:
        """Write every trace of every package, and the records of those that are complete."""
        for package in self._archive.packages():
            for part in self._archive.bundles(package, level=self._level, max_rows=_BUNDLE_ROWS):
                first = len(self.numbers) + 1
                numbers = {ordinal: first + ordinal for ordinal in range(len(part.trace_ids))}
                self.numbers.update(zip(part.trace_ids, numbers.values(), strict=True))
                staged = stage(TraceBundle(part.trace_ids, part.tables), numbers, self._level)
                self._add(staged.nodes, staged.edges)
                counts = counts_by_trace(staged)
                done = {}
                for name in part.trace_ids:
                    if name in self._annotated:
                        self._open_counts[name] = Counter(counts[self.numbers[name]])
                    else:
                        done[name] = counts[self.numbers[name]]
                self._record(done)

    def write_annotations(self) -> None:
        """Write appended rows, each once, then the records of the traces that they belong to."""
        seen: set[tuple[Any, ...]] = set()
        for package in self._archive.annotations():
            for part in self._archive.bundles(package, max_rows=_ANNOTATION_ROWS):
                numbers = {ordinal: self.numbers[name] for ordinal, name in enumerate(part.trace_ids) if name in self.numbers}
                stager = Stager(TraceBundle(part.trace_ids, part.tables), numbers)
                nodes, edges = {}, {}
                for node in schema.NODES:
                    if (table := stager.nodes(node.label)) is not None and (table := _fresh(table, ["uid"], node.label, seen)) is not None:
                        nodes[node.label] = table
                        if node.of is not None:
                            edges[schema.edge_table("OF", node.label, node.of)] = of_edges(node, table)
                for name in schema.EDGE_TABLES:
                    if (table := stager.edges(name)) is not None and (table := _fresh(table, None, name, seen)) is not None:
                        edges[name] = table
                self._add(nodes, edges)
                by_number = {self.numbers[name]: name for name in part.trace_ids if name in self.numbers}
                for number, counts in _counts(nodes, edges).items():
                    self._open_counts[by_number[number]].update(counts)
        self._record(self._open_counts)

    def write_bookkeeping(self) -> None:
        """Write the highest number given out, and the mark that says that this was an import."""
        self._files.write("StoreCounter", COUNTER_HEADER, counter_rows(len(self.numbers)))

    def _record(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        if counts:
            self._files.write(
                "StoreTrace", RECORD_HEADER, record_rows([(name, self.numbers[name], found) for name, found in counts.items()])
            )

    def _add(self, nodes: Mapping[str, pa.Table], edges: Mapping[str, pa.Table]) -> None:
        for name, table in {**nodes, **edges}.items():
            self._files.write(name, import_header(name), _ready(table) if name == "Trace" else table)
        self.nodes += sum(table.num_rows for table in nodes.values())
        written = sum(table.num_rows for table in edges.values())
        self.edges += written
        if self._progress is not None:
            self._progress(written)


def _ready(traces: pa.Table) -> pa.Table:
    """Make Trace rows visible: an import is complete or fails as a whole."""
    import pyarrow as pa

    names = traces.column_names
    shown = traces.set_column(names.index("ready_id"), "ready_id", traces.column("trace_id"))
    return shown.set_column(names.index("status"), "status", pa.array(["READY"] * traces.num_rows))


def _fresh(table: pa.Table, keys: list[str] | None, name: str, seen: set[tuple[Any, ...]]) -> pa.Table | None:
    """Leave out rows that were appended before: nodes by their key, relationships by everything they hold (as a load does)."""
    import pyarrow as pa

    columns = [table.column(column).to_pylist() for column in keys or table.column_names]
    keep = []
    for key in zip(*columns, strict=True):
        keep.append((name, *key) not in seen)
        seen.add((name, *key))
    fresh = table.filter(pa.array(keep))
    return fresh.combine_chunks() if fresh.num_rows else None


def _counts(nodes: Mapping[str, pa.Table], edges: Mapping[str, pa.Table]) -> dict[int, dict[str, int]]:
    from tracestore.store.staging import Staged

    return counts_by_trace(Staged(nodes, edges))


def _arguments(tables: tuple[str, ...]) -> Iterator[str]:
    """Yield the tool's options. Paths are relative: the folder may be moved, or mounted into a container."""
    yield "--id-type=integer"
    yield "--bad-tolerance=0"  # the tool's own default lets a thousand errors pass
    yield f"--array-delimiter=U+{ord(LIST_SEPARATOR):04X}"
    yield "--multiline-fields-format=v2"  # only files that need it are read in the slow way
    yield "--multiline-fields=" + ",".join(f"{name}.csv" for name in tables if has_text(name))
    for name in tables:
        files = f"{name}.header.csv,{name}.csv"
        if name in schema.EDGE_TABLES:
            yield f"--relationships={schema.EDGE_TABLES[name][0].type}={files}"
        else:
            yield f"--nodes={name}={files}"
