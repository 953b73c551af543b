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
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tracestore import schema
from tracestore.archive.layout import write_private
from tracestore.errors import BadInputError
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.folder import export_folder
from tracestore.export.import_csv import LIST_SEPARATOR, CsvFolder, has_text, import_header
from tracestore.export.numbered import NumberedArchive, made_ready
from tracestore.load import LoadPlan
from tracestore.store.base import LoadLevel
from tracestore.store.neo4j.importing import COUNTER_HEADER, RECORD_HEADER, counter_rows, record_rows
from tracestore.store.staging import Staged, counts_by_trace

ARGUMENTS: Final = "import.args"


def export_neo4j_import(request: ExportRequest) -> ExportReport:
    """Write the files and say with which command they become a database. See `formats.export_archive`."""
    if request.since is not None:
        raise BadInputError("a bulk import fills a new server with everything: leave --since out, load increments with: tracestore load")
    report = export_folder("neo4j-import", request, _write)
    command = f"cd {shlex.quote(str(report.path))} && neo4j-admin database import full neo4j @{ARGUMENTS}"
    return replace(report, commands=(command,))


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
        self._rows = NumberedArchive(request.archive, level, request.since)
        self._files = files
        self._progress = request.progress
        self._annotated = {name for package in request.archive.annotations() for name in package.trace_ids}
        self._open_counts: dict[str, Counter[str]] = {}  # of annotated traces: more rows may come
        self.nodes = 0
        self.edges = 0

    @property
    def numbers(self) -> Mapping[str, int]:
        """The number of every trace that was written."""
        return self._rows.numbers

    def write_traces(self) -> None:
        """Write every trace of every package, and the records of those that are complete."""
        for trace_ids, staged in self._rows.traces():
            self._add(staged)
            counts = counts_by_trace(staged)
            done = {}
            for name in trace_ids:
                if name in self._annotated:
                    self._open_counts[name] = Counter(counts[self.numbers[name]])
                else:
                    done[name] = counts[self.numbers[name]]
            self._record(done)

    def write_annotations(self) -> None:
        """Write appended rows, each once, then the records of the traces that they belong to."""
        for trace_ids, staged in self._rows.annotations():
            self._add(staged)
            by_number = {self.numbers[name]: name for name in trace_ids if name in self.numbers}
            for number, counts in counts_by_trace(staged).items():
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

    def _add(self, staged: Staged) -> None:
        for name, table in made_ready(staged).items():
            self._files.write(name, import_header(name), table)
        self.nodes += staged.node_count
        self.edges += staged.edge_count
        if self._progress is not None:
            self._progress(staged.edge_count)


def _arguments(tables: tuple[str, ...]) -> Iterator[str]:
    """Yield the tool's options. Paths are relative (2026.x wants a `./`): the folder may be moved, or mounted into a container."""
    yield "--id-type=integer"
    yield "--bad-tolerance=0"  # the tool's own default lets a thousand errors pass
    yield f"--array-delimiter=U+{ord(LIST_SEPARATOR):04X}"
    yield "--multiline-fields-format=v2"  # only files that need it are read in the slow way
    yield "--multiline-fields=" + ",".join(f"./{name}.csv" for name in tables if has_text(name))
    for name in tables:
        files = f"./{name}.header.csv,./{name}.csv"
        if name in schema.EDGE_TABLES:
            yield f"--relationships={schema.EDGE_TABLES[name][0].type}={files}"
        else:
            yield f"--nodes={name}={files}"
