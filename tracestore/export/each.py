"""What formats that write trace by trace share: the traces of a request in order, and files in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tracestore.archive.layout import open_private
from tracestore.export.base import ExportRequest
from tracestore.export.numbered import packages_since
from tracestore.model import Trace


def traces_of(request: ExportRequest) -> Iterator[Trace]:
    """Read the wanted traces, with what was appended to them; progress counts their relationships."""
    if request.since is None:
        found = request.archive.read_traces()
    else:
        packages = packages_since(request.archive, request.since)
        names = dict.fromkeys(name for package in packages for name in package.trace_ids if name in request.archive)
        found = request.archive.read_traces(names)
    for trace in found:
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
