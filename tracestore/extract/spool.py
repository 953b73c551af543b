"""Collect the tables of many outputs without holding them all in memory.

Parts stay in memory up to a limit; beyond it they go to temporary files that are unlinked as soon as they exist (nothing is left behind
by a process that dies, nobody else can open them), and come back memory-mapped: the operating system keeps of them what it has room for.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Mapping
from typing import IO, Any, Final

import pyarrow as pa

from tracestore.errors import ResourceError

LIMIT_BYTES: Final = 256 << 20


class TableSpool:
    """Takes tables by name, part by part, and gives each as one table."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._parts: dict[str, list[pa.Table]] = {}
        self._held = 0
        self._files: dict[str, tuple[IO[bytes], Any]] = {}

    @property
    def spilled(self) -> bool:
        """Did anything go to files?"""
        return bool(self._files)

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Take parts of tables. Raises ResourceError when the temporary folder is full."""
        for name, rows in tables.items():
            if rows.num_rows:
                self._parts.setdefault(name, []).append(rows)
                self._held += rows.nbytes
        if self._held > self._limit:
            self._spill()

    def tables(self) -> dict[str, pa.Table]:
        """Give every table whole; nothing can be added afterwards."""
        if not self._files:
            return {name: pa.concat_tables(parts) for name, parts in self._parts.items()}
        self._spill()
        return {name: _mapped(file, writer) for name, (file, writer) in self._files.items()}

    def _spill(self) -> None:
        try:
            for name, parts in self._parts.items():
                if name not in self._files:
                    file = tempfile.TemporaryFile(prefix="tracestore-")  # noqa: SIM115 (it outlives this function, through its mapping)
                    self._files[name] = file, pa.ipc.new_stream(file, parts[0].schema)
                writer = self._files[name][1]
                writer.write_table(pa.concat_tables(parts).combine_chunks())
        except OSError as error:
            raise ResourceError(
                f"the tables of a trace do not fit into {tempfile.gettempdir()} ({error.strerror}): "
                "explain fewer targets, lower max_edges, or set TMPDIR to a larger disk"
            ) from None
        self._parts, self._held = {}, 0


def _mapped(file: IO[bytes], writer: Any) -> pa.Table:
    writer.close()
    file.flush()
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.close()
    return pa.ipc.open_stream(pa.py_buffer(view)).read_all()
