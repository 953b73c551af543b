"""The formats as streams of bytes, for a server: nothing larger than one trace, or one piece of a table, is in memory.

1. `ndjson` and `span-annotations` are lines; one table of `parquet` or `csv` is a file: their bytes leave as they are made.
2. The rest are many files: a tar, whose entries say their size first. A trace's file is made in memory, a table's in a temporary file.

What the folder formats write (`tracestore export`) is what these give, byte for byte but for the order of rows that were appended.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from tracestore.errors import BadInputError
from tracestore.export.each import read_wanted
from tracestore.export.graphs import graph_file
from tracestore.export.neuronpedia import graph_files
from tracestore.export.predictions import json_lines, predictions, span_annotations
from tracestore.export.tables import TABLES, Writer, csv_writer, parquet_writer, plain_table, table_rows
from tracestore.model import Trace
from tracestore.store.base import LoadLevel

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive import Archive

_PIECE: Final = 1 << 18
_BLOCK: Final = tarfile.BLOCKSIZE
_MADE: Final[dict[str, Callable[[Any, pa.Schema], Writer]]] = {"parquet": parquet_writer, "csv": csv_writer}
_LINES: Final = {"ndjson": predictions, "span-annotations": span_annotations}
TABLE_FORMATS: Final = tuple(_MADE)
LINE_FORMATS: Final = tuple(_LINES)
STREAMED: Final = (*TABLE_FORMATS, *LINE_FORMATS, "graphml", "node-link", "neuronpedia")
"""The formats that can be streamed: all but the files for a server's bulk import, which stand beside that server."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to give: the traces of packages closed at `since` (ms since 1970) or later, and among the ids in `only`. None: all.

    `level` counts for tables alone; the other formats hold whole traces.
    """

    archive: Archive
    level: LoadLevel = "summary"
    since: int | None = None
    only: Collection[str] | None = None


def stream_export(format: str, chosen: Selection) -> Iterator[bytes]:
    """Give all of a format: lines, or a tar of its files. Raises BadInputError for a format that is not streamed, ArchiveError."""
    if format in _LINES:
        return (line.encode() for trace in _traces(chosen) for line in json_lines(_LINES[format](trace)))
    if format in _MADE:
        return _tar(_table_files(format, chosen))
    if format in STREAMED:
        return _tar(_trace_files(format, chosen))
    raise BadInputError(f"this format cannot be streamed; there are {', '.join(STREAMED)}")


def stream_table(format: str, name: str, chosen: Selection) -> Iterator[bytes]:
    """Give one table as a Parquet or CSV file. Raises BadInputError for an unknown format or table, ArchiveError."""
    if format not in _MADE:
        raise BadInputError(f"tables can be given as {', '.join(TABLE_FORMATS)}")
    sink = _Sink()
    writer: Writer | None = None
    for rows in table_rows(chosen.archive, name, chosen.level, chosen.since, chosen.only):
        table = plain_table(rows) if format == "csv" else rows
        writer = writer or _MADE[format](sink, table.schema)
        if table.num_rows:
            writer.write_table(table)
        if piece := sink.take():
            yield piece
    if writer is not None:
        writer.close()
    yield sink.take()


def _traces(chosen: Selection) -> Iterator[Trace]:
    return read_wanted(chosen.archive, chosen.since, chosen.only)


def _trace_files(format: str, chosen: Selection) -> Iterator[tuple[str, IO[bytes]]]:
    for trace in _traces(chosen):
        found: Iterable[tuple[str, str]]
        if format == "neuronpedia":
            found = graph_files(trace)
        else:
            name, pieces = graph_file(format, trace)
            found = [(name, "".join(pieces))]
        for name, text in found:
            yield name, io.BytesIO(text.encode())


def _table_files(format: str, chosen: Selection) -> Iterator[tuple[str, IO[bytes]]]:
    for name in TABLES:
        with tempfile.TemporaryFile() as file:
            for piece in stream_table(format, name, chosen):
                file.write(piece)
            yield f"{name}.{format}", file


def _tar(files: Iterable[tuple[str, IO[bytes]]]) -> Iterator[bytes]:
    """Give files as an uncompressed tar; only their owner may read them once it is unpacked."""
    for name, file in files:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = file.seek(0, io.SEEK_END), 0o600
        file.seek(0)
        yield entry.tobuf(tarfile.PAX_FORMAT)
        while piece := file.read(_PIECE):
            yield piece
        yield bytes(-entry.size % _BLOCK)
    yield bytes(2 * _BLOCK)


class _Sink(io.RawIOBase):
    """A file to write to, whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Give what was written since it was last asked."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
