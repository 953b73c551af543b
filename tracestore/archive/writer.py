"""Collect traces and write them as packages.

Traces of the open package stay in memory until it is closed; closing can therefore be repeated when it was interrupted, and a process that
dies loses the open package only. A package is closed at 64 traces, 128 MB (in memory; less on disk) or 60 s after its first trace.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from tracestore import schema
from tracestore.archive.layout import Layout, storage_errors
from tracestore.archive.manifest import Package
from tracestore.archive.package import Part, make_part, new_token, write_package
from tracestore.errors import BadInputError
from tracestore.model import Trace

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TRACES: Final = 64
MAX_BYTES: Final = 128 * 2**20
MAX_SECONDS: Final = 60.0
APPENDED_LOCAL_BIT: Final = 1 << 31


class ArchiveWriter:
    """Writes traces and annotations; a context manager. Several writers, in one process or many, may work on one archive at once.

    Leaving the context writes what was added, also on an exception or Ctrl-C: every added trace is whole.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        max_traces: int = MAX_TRACES,
        max_bytes: int = MAX_BYTES,
        max_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout
        self._limits = (max_traces, max_bytes, max_seconds)
        self._clock = clock
        self._traces: dict[str, Part] = {}
        self._annotations: list[Part] = []
        self._bytes = 0
        self._opened = 0.0
        self._tokens = (new_token(), new_token())
        self.packages: list[Package] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        except KeyboardInterrupt:
            self.close()  # the traces are still here; a second Ctrl-C gets through
            raise

    def add(self, trace: Trace) -> bool:
        """Add a trace; False (and nothing added) when the open package already holds it.

        Raises BadInputError for tables that do not fit the schema, ResourceError or ArchiveError when the package cannot be written.
        """
        check_trace(trace)
        if trace.trace_id in self._traces:
            return False
        part = make_part(trace.trace_id, trace.tables)
        self._start()
        self._traces[trace.trace_id] = part
        self._bytes += part.bytes
        self.close_if_full()
        return True

    def add_items(self, trace_id: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Add Item rows (properties without `local`) to a trace that is in the archive or in this writer."""
        self.annotate(trace_id, {"Item": item_table(items)})

    def annotate(self, trace_id: str, tables: Mapping[str, pa.Table]) -> None:
        """Add rows to a trace: tables with `schema.arrow_schema`, numbers local to the trace."""
        check_tables(trace_id, tables)
        part = make_part(trace_id, tables)
        if part.tables:
            self._start()
            self._annotations.append(part)
            self._bytes += part.bytes
            self.close_if_full()

    @property
    def pending(self) -> int:
        """Traces that were added and are not on disk yet."""
        return len(self._traces)

    def close(self) -> None:
        """Write what was added since the last package. Nothing happens without additions, so it can be called at any time."""
        pending = len(self._traces)
        lost = f"{pending} traces since the last package were not kept; the next run makes them again." if pending else ""
        with storage_errors(f"a package of the archive {self._layout.root}", lost):
            if self._traces:
                self.packages.append(write_package(self._layout, "traces", list(self._traces.values()), token=self._tokens[0]))
                self._traces = {}
            if self._annotations:
                self.packages.append(write_package(self._layout, "annotations", merge_parts(self._annotations), token=self._tokens[1]))
                self._annotations = []
        self._bytes = 0

    def _start(self) -> None:
        if not self._traces and not self._annotations:
            self._opened = self._clock()
            self._tokens = (new_token(), new_token())

    def close_if_full(self) -> None:
        """Close the open package when a limit is reached. Adding does this; call it where long work comes between two additions."""
        max_traces, max_bytes, max_seconds = self._limits
        count = len(self._traces) + len({part.trace_id for part in self._annotations})
        if count >= max_traces or self._bytes >= max_bytes or self._clock() - self._opened >= max_seconds:
            self.close()


def check_trace(trace: Trace) -> None:
    """Raise BadInputError unless a trace has a sound id, one Trace row with that id and local 0, and tables of the schema."""
    if not 0 < len(trace.trace_id) <= 200 or not trace.trace_id.isprintable():
        raise BadInputError("A trace id must have 1 to 200 printable characters: make it with tracestore.ids.trace_id.")
    rows = trace.table("Trace")
    if rows.num_rows != 1 or rows["trace_id"][0].as_py() != trace.trace_id or rows["local"][0].as_py() != 0:
        raise BadInputError(f"Trace {trace.trace_id} needs exactly one Trace row, with its own id and local number 0.")
    check_tables(trace.trace_id, trace.tables)


def check_tables(trace_id: str, tables: Mapping[str, pa.Table]) -> None:
    """Raise BadInputError for a table that the schema does not know or whose columns differ from it."""
    for name, table in tables.items():
        if name not in schema.ARCHIVE_TABLES:
            raise BadInputError(f"Trace {trace_id} has a table {name!r} that schema.py does not define.")
        expected = schema.arrow_schema(name)
        if not table.schema.equals(expected):
            wrong = [f.name for f in expected if f.name not in table.column_names or table.schema.field(f.name).type != f.type]
            raise BadInputError(
                f"Table {name} of trace {trace_id} lacks the columns of schema.arrow_schema (look at {wrong or 'order and nullability'})."
            )
        for field in expected:
            if not field.nullable and table[field.name].null_count:
                raise BadInputError(f"Table {name} of trace {trace_id} has nulls in {field.name}, which must have a value.")


def appended_local(name: str) -> int:
    """Number an appended node by its name, so that it cannot meet the trace's own numbers."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
    return APPENDED_LOCAL_BIT | (int.from_bytes(digest[:4], "big") >> 1)


def item_local(item_id: str) -> int:
    """Number an appended Item by its id."""
    return appended_local(item_id)


def item_table(items: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make an Item table from properties; `local` follows from `item_id`, absent tags are none."""
    import pyarrow as pa

    columns = schema.arrow_schema("Item")
    rows = [{"tags": [], **item, "local": item_local(str(item["item_id"]))} for item in items]
    unknown = {name for row in rows for name in row} - set(columns.names)
    if unknown:
        raise BadInputError(f"An Item has no property {min(unknown)}: see schema.py.")
    try:
        return pa.Table.from_pylist(rows, schema=columns)
    except (UnicodeEncodeError, pa.ArrowException) as error:
        raise BadInputError(
            f"An Item does not fit the schema ({type(error).__name__}): check its types, and for half characters."
        ) from error


def merge_parts(parts: Sequence[Part]) -> list[Part]:
    """Bring the annotations of each trace together: a package names a trace once."""
    import pyarrow as pa

    by_trace: dict[str, list[Part]] = {}
    for part in parts:
        by_trace.setdefault(part.trace_id, []).append(part)
    merged = []
    for trace_id, found in by_trace.items():
        names = {name for part in found for name in part.tables}
        tables = {name: pa.concat_tables([part.tables[name] for part in found if name in part.tables]) for name in names}
        for label in tables.keys() & schema.NODE_BY_LABEL.keys():
            tables[label] = _first_of_each(tables[label])
        merged.append(make_part(trace_id, tables))
    return merged


def _first_of_each(nodes: pa.Table) -> pa.Table:
    """Leave out nodes that are there already."""
    seen: dict[Any, int] = {}
    for row, local in enumerate(nodes["local"].to_pylist()):
        seen.setdefault(local, row)
    return nodes.take(list(seen.values()))
