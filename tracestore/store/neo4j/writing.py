"""Rows into the server, batch by batch.

1. One parameterised UNWIND + CREATE for each table; rows are lists; both ends of an edge are found by label and uid, hence by index.
2. One transaction for each batch (several tables share one when they are small): the rows, the batch's marker, the lease. A second try
   looks for the marker first, so a batch that did arrive is not written twice.
3. The server says how many it made; fewer than were sent is an error, and the transaction is not committed.
4. When the server lacks memory for a batch, send half as much from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.errors import ResourceError, ShortCountError
from tracestore.store.base import Progress
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.neo4j.ledger import require_lease
from tracestore.store.staging import Staged, node_columns

if TYPE_CHECKING:
    import neo4j
    import pyarrow as pa

_SMALLEST_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How to write: rows in a batch, writers side by side on disjoint traces, and how long a silent load keeps its claims (seconds)."""

    batch_rows: int = 10_000
    writers: int = 1
    lease_s: float = 60.0

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return round(self.lease_s * 1000)


def node_statement(label: str) -> str:
    """Create nodes of a label: one row is (uid, trace_no, properties...)."""
    properties = ", ".join(f"{name}: r[{index}]" for index, name in enumerate(node_columns(label)))
    return f"UNWIND $rows AS r CREATE (:{label} {{{properties}}})"


def edge_statement(table: str) -> str:
    """Create relationships of one type between two labels: one row is (source uid, target uid, properties...)."""
    edge, source, target = schema.EDGE_TABLES[table]
    properties = ", ".join(f"{column.name}: r[{index + 2}]" for index, column in enumerate(edge.columns))
    held = f" {{{properties}}}" if properties else ""
    return f"UNWIND $rows AS r MATCH (a:{source} {{uid: r[0]}}) MATCH (b:{target} {{uid: r[1]}}) CREATE (a)-[:{edge.type}{held}]->(b)"


def to_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Turn a table into rows of Python values, numbers without nulls by the short way."""
    import pyarrow.types as kinds

    columns: list[list[Any]] = []
    for column in table.columns:
        number = kinds.is_integer(column.type) or kinds.is_floating(column.type)
        columns.append(column.to_numpy().tolist() if number and column.null_count == 0 else column.to_pylist())
    return list(zip(*columns, strict=True))


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table."""

    table: str
    rows: list[tuple[Any, ...]]

    @property
    def edges(self) -> bool:
        """Are they relationships."""
        return self.table in schema.EDGE_TABLES

    @property
    def statement(self) -> str:
        """What creates them."""
        return edge_statement(self.table) if self.edges else node_statement(self.table)


def halves(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Split a batch in two of about the same number of rows, in order."""
    left: list[Piece] = []
    right: list[Piece] = []
    room = sum(len(piece.rows) for piece in pieces) // 2
    for piece in pieces:
        if piece.rows[:room]:
            left.append(Piece(piece.table, piece.rows[:room]))
        if piece.rows[room:]:
            right.append(Piece(piece.table, piece.rows[room:]))
        room = max(0, room - len(piece.rows))
    return left, right


class Writer:
    """Sends staged tables under one lease. Several writers may work side by side on disjoint traces."""

    def __init__(
        self, database: Database, load_id: str, number: int, settings: LoadSettings, stop: threading.Event, progress: Progress | None
    ) -> None:
        self._database = database
        self._load_id = load_id
        self._number = number
        self._settings = settings
        self._stop = stop
        self._progress = progress
        self.batch_rows = settings.batch_rows

    def write(self, staged: Staged) -> int:
        """Write nodes, then edges; give the number of rows. Raises ShortCountError, StoreLockedError, StoreUnavailableError."""
        written = 0
        for number, batch in enumerate(self._batches(staged)):
            if self._stop.is_set():
                break
            self._send(f"{self._load_id}:{self._number}:{number}", batch)
            written += sum(len(piece.rows) for piece in batch)
        return written

    def _batches(self, staged: Staged) -> Iterator[list[Piece]]:
        """Cut the tables into batches; small tables share one. Only one batch at a time is held as Python values."""
        batch: list[Piece] = []
        room = self.batch_rows
        for name, table in (*staged.nodes.items(), *staged.edges.items()):
            first = 0
            while first < table.num_rows:
                part = table.slice(first, room)
                first += part.num_rows
                room -= part.num_rows
                batch.append(Piece(name, to_rows(part)))
                if room == 0:
                    yield batch
                    batch, room = [], self.batch_rows  # may have shrunk meanwhile
        if batch:
            yield batch

    def _send(self, batch_id: str, batch: list[Piece]) -> None:
        """Send one batch; in halves when the server lacks memory for it (its transaction was rolled back then)."""
        size = sum(len(piece.rows) for piece in batch)
        attempts = 0

        def work(transaction: neo4j.Transaction) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1 or not self._arrived(transaction, batch_id):
                self._create(transaction, batch)
                self._mark(transaction, batch_id, size)

        try:
            self._database.write(work, f"a batch of {size} rows")
        except ResourceError:
            if size // 2 < _SMALLEST_BATCH:
                raise
            self.batch_rows = min(self.batch_rows, size // 2)
            for number, half in enumerate(halves(batch)):
                self._send(f"{batch_id}.{number}", half)
            return
        edges = sum(len(piece.rows) for piece in batch if piece.edges)
        if edges and self._progress is not None:
            self._progress(edges)

    def _arrived(self, transaction: neo4j.Transaction, batch_id: str) -> bool:
        """Did an earlier try of this batch arrive, though its answer was lost? Waits for one that is still being committed."""
        query = "MERGE (b:StoreBatch {batch_id: $id}) ON CREATE SET b.load_id = $load RETURN b.rows"
        return rows(transaction, query, {"id": batch_id, "load": self._load_id})[0][0] is not None

    def _create(self, transaction: neo4j.Transaction, batch: list[Piece]) -> None:
        for piece in batch:
            counters = transaction.run(piece.statement, {"rows": piece.rows}).consume().counters
            made = counters.relationships_created if piece.edges else counters.nodes_created
            if made != len(piece.rows):
                raise ShortCountError(
                    f"{len(piece.rows)} rows of {piece.table} were sent and {made} arrived; nothing of them is visible, load again"
                )

    def _mark(self, transaction: neo4j.Transaction, batch_id: str, size: int) -> None:
        """Leave the batch's marker and prolong the lease. Last of all, so that writers hold the lease's lock for the commit only."""
        query = "MERGE (b:StoreBatch {batch_id: $id}) SET b.load_id = $load, b.rows = $rows"
        rows(transaction, query, {"id": batch_id, "load": self._load_id, "rows": size})
        require_lease(transaction, self._load_id, self._settings.lease_ms)
