"""What formats that write trace by trace share: the traces of a request in order, and files in its folder."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tracestore.archive.layout import open_private
from tracestore.export.base import ExportRequest
from tracestore.export.numbered import packages_since
from tracestore.model import Trace

if TYPE_CHECKING:
    from tracestore.archive import Archive


def read_wanted(archive: Archive, since: int | None, only: Container[str] | None = None) -> Iterator[Trace]:
    """Read traces with what was appended to them: of packages closed at `since` (ms since 1970) or later, and among the ids in `only`."""
    if since is None and only is None:
        return archive.read_traces()
    packages = packages_since(archive, since)
    names = dict.fromkeys(name for package in packages for name in package.trace_ids if name in archive)
    return archive.read_traces(name for name in names if only is None or name in only)


def traces_of(request: ExportRequest) -> Iterator[Trace]:
    """Read the wanted traces; progress counts their relationships."""
    for trace in read_wanted(request.archive, request.since):
        yield trace
        if request.progress is not None:
            request.progress(edge_count(trace))


def edge_count(trace: Trace) -> int:
    """Count the relationships of a trace."""
    return sum(table.num_rows for name, table in trace.tables.items() if "." in name)


def node_count(trace: Trace) -> int:
    """Count the nodes of a trace."""
    return sum(table.num_rows for name, table in trace.tables.items() if "." not in name)


@contextmanager
def text_file(path: Path) -> Iterator[IO[str]]:
    """Open a new private file for text."""
    with os.fdopen(open_private(path), "w", encoding="utf-8", newline="\n") as file:
        yield file


def file_name(output_id: str) -> str:
    """Turn an output's id into a file's name."""
    return output_id.replace(":", "_")
