"""Batches into the server, by one or several writers under one lease.

1. Work comes in groups of whole traces; each writer takes the next group when it is done with one, so that all end together.
2. One transaction for each batch: the rows, then the batch's marker and the writer's part of the lease. A batch of one table is one
   statement, sent once. A second try looks for the marker first, so a batch that did arrive is not written twice.
3. The server says how many rows it made; fewer than were sent is an error, and the transaction is not committed.
4. When the server lacks memory for a batch, all writers send half as much; after many that passed they try more again.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import ResourceError, ShortCountError, StoreLockedError, TracestoreError
from tracestore.store.base import Progress
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.cleaning import clean_orphans
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.neo4j.writing import Piece, cut_batches, halves
from tracestore.store.staging import Staged, counts_by_trace

if TYPE_CHECKING:
    import neo4j

_SMALLEST_BATCH: Final = 100
_BATCHES_BEFORE_GROWING: Final = 50
_LEASE: Final = "WITH made OPTIONAL MATCH (l:StoreLease {load_id: $lease}) SET l.expires_at = timestamp() + $ms "
_MARK: Final = (
    " WITH count(*) AS made MERGE (m:StoreBatch {batch_id: $batch}) SET m.load_id = $load, m.rows = $size "
    + _LEASE
    + "RETURN made, count(l)"
)
"""What follows the last statement of a batch in its transaction."""

_MARK_OR_FAIL: Final = (
    " WITH count(*) AS made CREATE (m:StoreBatch {batch_id: $batch, load_id: $load, rows: $size}) "
    + _LEASE
    + "WITH made, count(l) AS held RETURN made / CASE WHEN made = $size AND held = 1 THEN 1 ELSE 0 END"
)
"""The same for a statement that is a transaction by itself, where nobody can look before the commit: the division by zero takes everything
back. CREATE, not MERGE: a server may still be at it when the line broke, and must fail once the second try left the marker."""

_GIVE_BACK_S: Final = 5.0
"""How long a failed load tries to give its lease back; it ends by itself."""


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


class Pace:
    """Rows in a batch at present: less after the server lacked memory, up to `most` again when it does not any more."""

    def __init__(self, most: int) -> None:
        self.rows = most
        self._most = most
        self._passed = 0
        self._guard = threading.Lock()

    def refused(self, size: int) -> bool:
        """Take note that a batch was too much; tell whether half of it is worth trying."""
        with self._guard:
            self._passed = 0
            self.rows = max(_SMALLEST_BATCH, min(self.rows, size // 2))
            return size // 2 >= _SMALLEST_BATCH

    def passed(self) -> None:
        """Take note that a batch arrived."""
        with self._guard:
            self._passed += 1
            if self._passed >= _BATCHES_BEFORE_GROWING:
                self._passed = 0
                self.rows = min(2 * self.rows, self._most)


Group = Callable[[], Staged]
"""Whole traces that one writer writes; made into rows when their turn comes."""

RowCounts = dict[int, dict[str, int]]
"""Rows by trace number and table."""


class Load:
    """One load: its lease, and what is written under it."""

    def __init__(self, database: Database, settings: LoadSettings, pace: Pace | None = None) -> None:
        self.database = database
        self.settings = settings
        self.pace = pace or Pace(settings.batch_rows)
        self.load_id = secrets.token_hex(16)
        self.stop = threading.Event()

    def abandon(self) -> None:
        """Give the lease back and clean up; when the server cannot be reached, whoever comes next does it."""

        def work(transaction: neo4j.Transaction) -> None:
            ledger.abandon(transaction, self.load_id)

        with suppress(TracestoreError):
            self.database.write(work, "the end of a failed load", patience_s=_GIVE_BACK_S)
            clean_orphans(self.database)

    def write_all(self, groups: Sequence[Group], progress: Progress | None) -> RowCounts:
        """Write every group; give what was written. The first error stops all writers."""
        waiting: queue.SimpleQueue[tuple[int, Group]] = queue.SimpleQueue()
        for entry in enumerate(groups):
            waiting.put(entry)
        shown = _in_turn(progress)
        writers = [Writer(self, number, shown) for number in range(max(1, min(self.settings.writers, len(groups))))]
        if len(writers) == 1:
            return writers[0].work_off(waiting)
        counts: RowCounts = {}
        with ThreadPoolExecutor(len(writers), thread_name_prefix="tracestore-writer") as pool:
            try:
                running = [pool.submit(writer.work_off, waiting) for writer in writers]
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for future in done:
                    counts.update(future.result())
            finally:
                self.stop.set()  # after success nobody is left to hear it
        return counts


def _in_turn(progress: Progress | None) -> Progress | None:
    """Let one writer at a time report."""
    if progress is None:
        return None
    lock = threading.Lock()

    def report(edges: int) -> None:
        with lock:
            progress(edges)

    return report


class Writer:
    """Sends batches under its part of a load's lease."""

    def __init__(self, load: Load, number: int, progress: Progress | None) -> None:
        self._load = load
        self._lease = ledger.lease_part(load.load_id, number)
        self._progress = progress

    def work_off(self, waiting: queue.SimpleQueue[tuple[int, Group]]) -> RowCounts:
        """Take groups and write them until none is left; give the rows written.

        Raises ShortCountError, StoreLockedError, StoreUnavailableError, ResourceError.
        """
        counts: RowCounts = {}
        while not self._load.stop.is_set():
            try:
                number, group = waiting.get_nowait()
            except queue.Empty:
                break
            staged = group()
            for batch_number, batch in enumerate(cut_batches(staged, lambda: self._load.pace.rows)):
                if self._load.stop.is_set():
                    break
                self._send(f"{self._load.load_id}:{number}:{batch_number}", batch)
            counts.update(counts_by_trace(staged))
        return counts

    def _send(self, batch_id: str, batch: list[Piece]) -> None:
        """Send one batch; in halves when the server lacks memory for it (its transaction was rolled back then)."""
        size = sum(len(piece.rows) for piece in batch)
        attempts = 0
        if len(batch) == 1:
            if self._load.database.once(batch[0].statement + _MARK_OR_FAIL, self._given(batch[0], batch_id, size)) is not None:
                self._arrived(batch)
                return
            attempts = 1

        def work(transaction: neo4j.Transaction) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1 or not self._is_there(transaction, batch_id):
                self._create(transaction, batch, batch_id, size)

        try:
            self._load.database.write(work, f"a batch of {size} rows")
        except ResourceError:
            if not self._load.pace.refused(size):
                raise
            for number, half in enumerate(halves(batch)):
                self._send(f"{batch_id}.{number}", half)
            return
        self._arrived(batch)

    def _arrived(self, batch: Sequence[Piece]) -> None:
        self._load.pace.passed()
        edges = sum(len(piece.rows) for piece in batch if piece.edges)
        if edges and self._progress is not None:
            self._progress(edges)

    def _is_there(self, transaction: neo4j.Transaction, batch_id: str) -> bool:
        """Did an earlier try of this batch arrive, though its answer was lost? Waits for one that is still being committed."""
        query = "MERGE (b:StoreBatch {batch_id: $id}) ON CREATE SET b.load_id = $load RETURN b.rows"
        return rows(transaction, query, {"id": batch_id, "load": self._load.load_id})[0][0] is not None

    def _create(self, transaction: neo4j.Transaction, batch: Sequence[Piece], batch_id: str, size: int) -> None:
        """Create the rows. The last statement leaves the marker and prolongs the lease too, so that this is locked for the commit only."""
        *first, last = batch
        for piece in first:
            counters = transaction.run(piece.statement, {"rows": piece.rows}).consume().counters
            _check(piece, counters.relationships_created if piece.edges else counters.nodes_created)
        ((made, held),) = rows(transaction, last.statement + _MARK, self._given(last, batch_id, size))
        if not held:
            raise StoreLockedError(ledger.LOST_LEASE)
        _check(last, made)

    def _given(self, piece: Piece, batch_id: str, size: int) -> dict[str, Any]:
        settings = self._load.settings
        marker = {"batch": batch_id, "load": self._load.load_id, "size": size}
        return {"rows": piece.rows, **marker, "lease": self._lease, "ms": settings.lease_ms}


def _check(piece: Piece, made: int) -> None:
    if made != len(piece.rows):
        raise ShortCountError(
            f"{len(piece.rows)} rows of {piece.table} were sent and {made} arrived; nothing of them is visible, load again"
        )
