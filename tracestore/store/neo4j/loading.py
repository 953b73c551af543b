"""The load of a bundle. Each arrow is a committed step; a crash between any two is cleaned by whoever comes next:

1. claim: a lease, fresh trace numbers, what of the bundle is ours (others may be READY, EVICTED or in another loader's hands)
2. N writers, each with traces of its own: nodes, then edges, batch by batch
3. flip: all batches there, READY, old generation RETIRED, claims and lease gone, in one small transaction
4. delete the old generation and the batch markers
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING

from tracestore.errors import IntegrityError, TracestoreError
from tracestore.store.base import LoadLevel, LoadReport, Progress, TraceBundle
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.cleaning import clean_orphans
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.holder import this_process
from tracestore.store.neo4j.writing import LoadSettings, Writer
from tracestore.store.staging import Staged, stage

if TYPE_CHECKING:
    import neo4j


def share_out(bundle: TraceBundle, ordinals: Sequence[int], writers: int) -> list[list[int]]:
    """Give every writer traces of its own, the largest first to whoever has least, so that all end at about the same time."""
    import numpy as np

    size = np.zeros(len(bundle.trace_ids), dtype=np.int64)
    for table in bundle.tables.values():
        size += np.bincount(table.column("trace").to_numpy(), minlength=len(size))
    shares: list[list[int]] = [[] for _ in range(max(1, min(writers, len(ordinals))))]
    loads = [0] * len(shares)
    for ordinal in sorted(ordinals, key=lambda ordinal: (-int(size[ordinal]), ordinal)):
        least = loads.index(min(loads))
        shares[least].append(ordinal)
        loads[least] += int(size[ordinal])
    return shares


class Load:
    """One load: its lease, and what was written under it."""

    def __init__(self, database: Database, settings: LoadSettings) -> None:
        self.database = database
        self.settings = settings
        self.load_id = secrets.token_hex(16)
        self._stop = threading.Event()

    def abandon(self) -> None:
        """Give the lease back and clean up; when the server cannot be reached, whoever comes next does it."""

        def work(transaction: neo4j.Transaction) -> None:
            ledger.abandon(transaction, self.load_id)

        with suppress(TracestoreError):
            self.database.write(work, "the end of a failed load")
            clean_orphans(self.database)

    def write_all(self, parts: Sequence[Staged], progress: Progress | None) -> None:
        """Write each part with a writer of its own. The first error stops all of them."""
        shown = _in_turn(progress)
        writers = [Writer(self.database, self.load_id, number, self.settings, self._stop, shown) for number in range(len(parts))]
        if len(parts) == 1:
            writers[0].write(parts[0])
            return
        with ThreadPoolExecutor(len(parts), thread_name_prefix="tracestore-writer") as pool:
            try:
                waiting = [pool.submit(writer.write, part) for writer, part in zip(writers, parts, strict=True)]
                done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                self._stop.set()  # after success nobody is left to hear it


def _in_turn(progress: Progress | None) -> Progress | None:
    """Let one writer at a time report."""
    if progress is None:
        return None
    lock = threading.Lock()

    def report(edges: int) -> None:
        with lock:
            progress(edges)

    return report


def load_bundle(
    database: Database,
    bundle: TraceBundle,
    *,
    level: LoadLevel,
    replace: bool,
    floor: int,
    settings: LoadSettings,
    progress: Progress | None,
) -> LoadReport:
    """Load whole traces; all that are ours become visible, or none. See `store.base.Store.load`."""
    started = time.perf_counter()
    if len(set(bundle.trace_ids)) != len(bundle.trace_ids):
        raise IntegrityError("a bundle holds one trace twice; load each package once")
    clean_orphans(database)
    load = Load(database, settings)

    def claim(transaction: neo4j.Transaction) -> ledger.Choice:
        return ledger.claim_traces(
            transaction, load.load_id, this_process(), bundle.trace_ids, replace=replace, floor=floor, lease_ms=settings.lease_ms
        )

    choice = database.write(claim, "a claim")
    if not choice.numbers:
        return LoadReport(skipped=choice.skipped, busy=choice.busy, seconds=time.perf_counter() - started)
    try:
        visible, nodes, edges = _write_and_flip(load, bundle, choice.numbers, level, progress)
    except BaseException:
        load.abandon()
        raise
    clean_orphans(database)
    gone = tuple(trace_id for trace_id in choice.numbers if trace_id not in visible)  # evicted while they loaded
    return LoadReport(visible, (*choice.skipped, *gone), nodes, edges, time.perf_counter() - started, choice.busy)


def _write_and_flip(
    load: Load, bundle: TraceBundle, numbers: Mapping[str, int], level: LoadLevel, progress: Progress | None
) -> tuple[tuple[str, ...], int, int]:
    ordinals = {ordinal: numbers[name] for ordinal, name in enumerate(bundle.trace_ids) if name in numbers}
    shares = share_out(bundle, list(ordinals), load.settings.writers)
    parts = [stage(bundle, {ordinal: ordinals[ordinal] for ordinal in share}, level) for share in shares]
    load.write_all(parts, progress)
    records = [
        ledger.Record(bundle.trace_ids[ordinal], ordinals[ordinal], "READY", part.row_counts(ordinals[ordinal]))
        for share, part in zip(shares, parts, strict=True)
        for ordinal in share
    ]
    nodes, edges = sum(part.node_count for part in parts), sum(part.edge_count for part in parts)

    def flip(transaction: neo4j.Transaction) -> tuple[str, ...]:
        return ledger.flip(transaction, load.load_id, records, nodes + edges, load.settings.lease_ms)

    flipped = set(load.database.write(flip, "the last step of a load"))
    return tuple(name for name in numbers if name in flipped), nodes, edges
