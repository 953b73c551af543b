"""The embedded store. How traces become visible (each arrow is a durable step; a crash between any two is cleaned on the next opening):

1. fresh trace numbers, noted as work in hand   (small transaction)
2. COPY nodes and edges                         (a transaction of nothing else)
3. count by query
4. flip: READY, old generation RETIRED, work crossed off, cleaning of the old noted   (small transaction)
5. delete the old generation                    (repeatable), cross it off
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from tracestore.errors import IntegrityError, StoreError, StoreUnavailableError, StoreVersionError
from tracestore.store.base import Capabilities, CheckReport, Limits, LoadLevel, LoadReport, Progress, Result, StoreStatus, TraceBundle
from tracestore.store.ladybug import files as paths
from tracestore.store.ladybug import ledger
from tracestore.store.ladybug.cleanup import clean_all, cleaned_on_failure
from tracestore.store.ladybug.handle import LEAST_ROOM_BYTES, EngineError, Handle
from tracestore.store.ladybug.migrations import apply_migrations, pending_migrations
from tracestore.store.ladybug.reading import Reader
from tracestore.store.record import Record

if TYPE_CHECKING:
    import pyarrow as pa
    from filelock import FileLock

_ROW_BYTES: Final = 64
"""Room that a node or an edge takes, its share of the log included."""

CAPABILITIES = Capabilities(dialect="ladybug", secondary_indexes=False, parallel_loaders=False, skips_past_the_end=False)


def open_ladybug(url: str, *, read_only: bool = False, create: bool = True) -> LadybugStore:
    """Open the store in a file. See `tracestore.store.open_engine`."""
    files = paths.locate(url)
    paths.check_place(files, write=not read_only)
    lock: FileLock | None = None
    if read_only:
        paths.finish_swap_for_reader(files)
    else:
        if not create and not files.database.exists() and not files.next.exists():
            raise StoreUnavailableError(f"there is no store at {files.database}; load something first, or check the path")
        lock = paths.take_lock(files)
    try:
        return _open_under_lock(url, files, lock)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _open_under_lock(url: str, files: paths.StoreFiles, lock: FileLock | None) -> LadybugStore:
    read_only = lock is None
    if not read_only:
        paths.require_room(files, LEAST_ROOM_BYTES)  # even opening and closing writes, and half of that would keep readers out
        paths.finish_swap(files)
        paths.remove_building(files)
    if files.database.exists():
        paths.check_versions(files)
    elif read_only:
        raise StoreUnavailableError(f"there is no store at {files.database}; load something first, or check the path")
    else:
        files.database.touch(mode=0o600)
    if not read_only:
        paths.write_marker(files)
    handle = Handle(files, read_only=read_only)
    applied: Sequence[str] = ()
    try:
        if not read_only:
            files.make_private()
            with handle.writing():
                applied = apply_migrations(handle)
                clean_all(handle)
        elif pending_migrations(handle):
            raise StoreVersionError(f"{files.database} misses schema changes; run tracestore store migrate --store {files.database}")
    except EngineError as error:
        handle.close()
        raise StoreError(f"{files.database} cannot be prepared: {str(error).splitlines()[0]}") from error
    except BaseException:
        handle.close()
        raise
    return LadybugStore(url, handle, lock, applied)


class LadybugStore:
    """A store in one file, open for writing (one process) or for reading (any number)."""

    def __init__(self, url: str, handle: Handle, lock: FileLock | None, applied: Sequence[str] = ()) -> None:
        self._url = url
        self._handle = handle
        self._lock = lock
        self._applied = tuple(applied)
        self._reader = Reader(handle)
        self._guard = threading.RLock()

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    @property
    def read_only(self) -> bool:
        """Is it open for reading only."""
        return self._lock is None

    def close(self) -> None:
        """Close the database and give the lock back. Closing twice does no harm."""
        self._reader.close()
        self._handle.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self) -> Handle:
        if self._lock is None:
            raise StoreError(f"{self._url} is open for reading only; open it for writing")
        return self._handle

    @contextmanager
    def _writing(self) -> Iterator[Handle]:
        """Give the database for a write; one thread at a time. Raises StoreError, ResourceError."""
        if self._lock is None:
            raise StoreError(f"{self._url} is open for reading only; open it for writing")
        with self._guard, self._handle.writing():
            yield self._handle
            self._handle.files.make_private()

    @property
    def applied(self) -> Sequence[str]:
        """Names of the migrations that opening applied."""
        return self._applied

    def migrate(self) -> Sequence[str]:
        """Apply what is missing of the migrations; give their names."""
        with self._writing() as handle:
            return apply_migrations(handle)

    def load(
        self,
        bundle: TraceBundle,
        *,
        level: LoadLevel = "summary",
        replace: bool = False,
        progress: Progress | None = None,
        writers: int | None = None,
    ) -> LoadReport:
        """Load whole traces; all become visible or none does. READY and EVICTED ones are skipped unless `replace`.

        There is one writer, whatever `writers` says: the file has one.
        Raises ShortCountError when rows did not arrive; then nothing of the bundle is visible and it can be loaded again.
        """
        from tracestore.store.ladybug.ingest import check_arrived, copy_staged
        from tracestore.store.staging import counts_by_trace, stage

        started = time.perf_counter()
        with self._writing() as handle:
            known = ledger.records(handle, bundle.trace_ids)
            chosen, skipped = _choose(bundle, known, replace=replace)
            if not chosen:
                return LoadReport(skipped=tuple(skipped), seconds=time.perf_counter() - started)
            paths.require_room(handle.files, LEAST_ROOM_BYTES + _room_for(bundle, len(chosen)))
            work = ledger.begin_load(handle, len(chosen))
            with cleaned_on_failure(handle, work):
                numbers = {ordinal: work.first_no + index for index, ordinal in enumerate(chosen)}
                staged = stage(bundle, numbers, level)
                copy_staged(handle, staged, progress)
                check_arrived(handle, staged, work.first_no, work.last_no)
                counts = counts_by_trace(staged)
                new = [Record(bundle.trace_ids[ordinal], number, "READY", counts[number]) for ordinal, number in numbers.items()]
                ledger.flip(handle, work, new, [known[entry.trace_id] for entry in new if entry.trace_id in known])
            clean_all(handle)
        loaded = tuple(entry.trace_id for entry in new)
        return LoadReport(loaded, tuple(skipped), staged.node_count, staged.edge_count, time.perf_counter() - started)

    def attach(self, bundle: TraceBundle, output_id: str) -> LoadReport:
        """Add the mechanism level of one Output whose trace is READY; `bundle` holds that trace.

        Raises BadInputError when the store or the bundle lacks the output, or the archive has no mechanism of it.
        """
        from tracestore.store.ladybug.attach import attach_output

        with self._writing() as handle:
            return attach_output(handle, bundle, output_id)

    def annotate(self, bundle: TraceBundle) -> LoadReport:
        """Add append-only rows (Item nodes of further input lines, knockouts) to READY traces; those already there are skipped."""
        from tracestore.store.ladybug.annotate import annotate_traces

        with self._writing() as handle:
            return annotate_traces(handle, bundle)

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run one read-only statement. The statement itself must select READY traces.

        Raises QueryError (the statement, its parameters' types, or the time limit), StoreUnavailableError.
        """
        return self._reader.run(cypher, params, limits)

    def read_output(self, output_id: str) -> Mapping[str, pa.Table]:
        """Read back everything stored of one Output: tables by name, `schema.arrow_schema` each, local numbers.

        Raises BadInputError when no READY trace has it.
        """
        from tracestore.store.ladybug.readback import read_output

        return read_output(self._reader, output_id)

    def ready(self) -> frozenset[str]:
        """Trace ids that are complete and visible."""
        return self._with_status("READY")

    def evicted(self) -> frozenset[str]:
        """Trace ids that were deleted on purpose: a load skips them."""
        return self._with_status("EVICTED")

    def _with_status(self, status: str) -> frozenset[str]:
        query = "MATCH (r:StoreTrace) WHERE r.status = $status RETURN r.trace_id AS trace_id"
        found = self._reader.run(query, {"status": status}, Limits(max_rows=None))
        return frozenset(str(name) for name in found.table.column("trace_id").to_pylist())

    def evict(self, trace_ids: Sequence[str]) -> int:
        """Delete traces and record EVICTED, so that the next load does not bring them back; give how many were there."""
        with self._writing() as handle:
            known = ledger.records(handle, list(trace_ids))
            wanted = dict.fromkeys(trace_ids)
            there = [known[name] for name in wanted if name in known and known[name].status == "READY"]
            ledger.retire_evicted(handle, there, [name for name in wanted if name not in known])
            clean_all(handle)
        return len(there)

    def continue_from(self, evicted: Sequence[str], highest_no: int) -> None:
        """Take over from a store that this one replaces: its EVICTED ids, and trace numbers above its own."""
        with self._writing() as handle:
            ledger.raise_counter(handle, highest_no)
            ledger.retire_evicted(handle, [], evicted)

    def status(self) -> StoreStatus:
        """Count nodes, relationships and traces."""
        from tracestore.store.ladybug.inspection import read_status

        return read_status(self._reader, self._url)

    def check(self) -> CheckReport:
        """Look for broken identities, orphans and missing rows."""
        from tracestore.store.ladybug.inspection import check_store

        return check_store(self._reader)


def _room_for(bundle: TraceBundle, traces: int) -> int:
    """Estimate the bytes that so many traces of a bundle will take."""
    rows = sum(table.num_rows for table in bundle.tables.values())
    return _ROW_BYTES * rows * traces // len(bundle.trace_ids)


def _choose(bundle: TraceBundle, known: Mapping[str, Record], *, replace: bool) -> tuple[list[int], list[str]]:
    """Give the ordinals to load and the ids to skip. Raises IntegrityError when a bundle holds one trace twice."""
    if len(set(bundle.trace_ids)) != len(bundle.trace_ids):
        raise IntegrityError("a bundle holds one trace twice; load each package once")
    chosen = [ordinal for ordinal, name in enumerate(bundle.trace_ids) if replace or name not in known]
    skipped = [name for name in bundle.trace_ids if not replace and name in known]
    return chosen, skipped
