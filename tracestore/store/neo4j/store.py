"""The Neo4j store: the Store protocol on a server. What it does stands in the modules beside this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING, Any, Final, Self

from tracestore.errors import BadInputError, StoreError, StoreUnavailableError, StoreVersionError
from tracestore.store.base import (
    BundleSize,
    Capabilities,
    CheckReport,
    Limits,
    LoadLevel,
    LoadReport,
    Progress,
    Result,
    StoreStatus,
    TraceBundle,
)
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.cleaning import clean_orphans
from tracestore.store.neo4j.connection import Credentials, check_url, make_driver, read_credentials, server_version, translated
from tracestore.store.neo4j.database import PATIENCE_S, Database
from tracestore.store.neo4j.migrations import apply_migrations, pending_migrations, restore_schema
from tracestore.store.neo4j.writers import LoadSettings, Pace

if TYPE_CHECKING:
    import neo4j
    import pyarrow as pa

CAPABILITIES: Final = Capabilities(
    dialect="neo4j",
    secondary_indexes=True,
    parallel_loaders=True,
    bundle=BundleSize(rows=400_000, min_traces=8, max_rows=1_200_000, max_traces=512),  # some ten seconds of work, under 100 MB
    read_ahead=1,
)
_WRITERS: Final = "TRACESTORE_WRITERS"
_MOST_WRITERS: Final = 64


def settings_from_environment() -> LoadSettings:
    """Read TRACESTORE_WRITERS (writers side by side, 1 to 64). Raises BadInputError."""
    text = os.environ.get(_WRITERS, "")
    if not text:
        return LoadSettings()
    return LoadSettings(writers=_checked(int(text) if text.isdigit() else 0))


def _checked(writers: int) -> int:
    if not 1 <= writers <= _MOST_WRITERS:
        raise BadInputError(f"the number of writers ({_WRITERS}) must be from 1 to {_MOST_WRITERS}")
    return writers


def open_neo4j(
    url: str,
    *,
    read_only: bool = False,
    create: bool = True,
    credentials: Credentials | None = None,
    allow_plain: bool | None = None,
    settings: LoadSettings | None = None,
    patience_s: float = PATIENCE_S,
) -> Neo4jStore:
    """Open a store on a server. See `tracestore.store.open_engine`; without `credentials` the environment is asked.

    Opening for writing applies missing migrations (with `create`, or where some were applied before), makes constraints and indexes anew
    that were dropped, and cleans what dead loads left.
    """
    checked = check_url(url, allow_plain=allow_plain)
    who = credentials or read_credentials()
    chosen = settings or settings_from_environment()
    database = Database(make_driver(checked, who, connections=_MOST_WRITERS + 16), who.database, patience_s=patience_s)
    try:
        with translated("a connection"):
            database.driver.verify_connectivity()
        version = server_version(database.driver, who.database)
        applied: Sequence[str] = ()
        missing = pending_migrations(database, checked)
        if missing and read_only:
            raise StoreVersionError(f"{checked} is not prepared, or misses schema changes; run: tracestore store migrate --store {checked}")
        if not read_only:
            if missing and not create and len(missing) == missing[-1].version:
                raise StoreUnavailableError(f"there is no store at {checked} yet; run: tracestore store init --store {checked}")
            applied = [*apply_migrations(database, checked), *restore_schema(database)]
            clean_orphans(database)
    except BaseException:
        database.close()
        raise
    return Neo4jStore(checked, database, version, chosen, read_only=read_only, applied=applied)


class Neo4jStore:
    """A store on a server, open for writing or for reading; any number of both."""

    def __init__(
        self, url: str, database: Database, version: str, settings: LoadSettings, *, read_only: bool, applied: Sequence[str] = ()
    ) -> None:
        self._url = url
        self._database = database
        self._version = version
        self._settings = settings
        self._read_only = read_only
        self._applied = tuple(applied)
        self._pace = Pace(settings.batch_rows)
        self._floor = 0  # READY traces up to this number are of an old generation: a rebuild replaces them

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    @property
    def read_only(self) -> bool:
        """Is it open for reading only."""
        return self._read_only

    @property
    def settings(self) -> LoadSettings:
        """How it writes."""
        return self._settings

    def close(self) -> None:
        """Close every connection. Closing twice does no harm."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self) -> Database:
        if self._read_only:
            raise StoreError(f"{self._url} is open for reading only; open it for writing")
        return self._database

    @property
    def applied(self) -> Sequence[str]:
        """Names of the migrations that opening applied, and of the constraints and indexes that it made anew."""
        return self._applied

    def migrate(self) -> Sequence[str]:
        """Apply what is missing of the migrations, and make lost constraints and indexes anew; give the names of both."""
        return [*apply_migrations(self._write(), self._url), *restore_schema(self._database)]

    def load(
        self,
        bundle: TraceBundle,
        *,
        level: LoadLevel = "summary",
        replace: bool = False,
        progress: Progress | None = None,
        writers: int | None = None,
    ) -> LoadReport:
        """Load whole traces; all that no other loader holds become visible, or none. READY and EVICTED are skipped unless `replace`.

        Raises ShortCountError when rows did not arrive, StoreLockedError when the lease was lost, StoreUnavailableError; then nothing of
        the bundle is visible and it can be loaded again.
        """
        from tracestore.store.neo4j.loading import load_bundle

        settings = self._settings if writers is None else with_changes(self._settings, writers=_checked(writers))
        return load_bundle(
            self._write(), bundle, level=level, replace=replace, floor=self._floor, settings=settings, pace=self._pace, progress=progress
        )

    def attach(self, bundle: TraceBundle, output_id: str) -> LoadReport:
        """Add the mechanism level of one Output whose trace is READY; `bundle` holds that trace.

        Raises BadInputError when the store or the bundle lacks the output, or the archive has no mechanism of it.
        """
        from tracestore.store.neo4j.attaching import attach_output

        return attach_output(self._write(), bundle, output_id, self._settings)

    def annotate(self, bundle: TraceBundle) -> LoadReport:
        """Add append-only rows (Item nodes of further input lines, knockouts) to READY traces; those already there are skipped."""
        from tracestore.store.neo4j.annotating import annotate_traces

        return annotate_traces(self._write(), bundle)

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run one statement in a read session. The statement itself must select READY traces.

        Raises QueryError (the statement, its parameters' types, or the time limit), StoreUnavailableError.
        """
        from tracestore.store.neo4j.reading import run

        return run(self._database, cypher, params, limits)

    def read_output(self, output_id: str) -> Mapping[str, pa.Table]:
        """Read back everything stored of one Output: tables by name, `schema.arrow_schema` each, local numbers."""
        from tracestore.store.neo4j.readback import read_output

        return read_output(self._database, output_id)

    def ready(self) -> frozenset[str]:
        """Trace ids that are complete and visible."""
        return self._with_status("READY")

    def evicted(self) -> frozenset[str]:
        """Trace ids that were deleted on purpose: a load skips them."""
        return self._with_status("EVICTED")

    def _with_status(self, status: str) -> frozenset[str]:
        found = self._database.rows("MATCH (r:StoreTrace {status: $status}) RETURN r.trace_id, r.trace_no", {"status": status})
        return frozenset(str(trace_id) for trace_id, number in found if status != "READY" or number > self._floor)

    def evict(self, trace_ids: Sequence[str]) -> int:
        """Delete traces and record EVICTED, so that the next load does not bring them back; give how many were there."""
        wanted = list(dict.fromkeys(trace_ids))

        def work(transaction: neo4j.Transaction) -> int:
            return ledger.evict(transaction, wanted)

        database = self._write()
        there = database.write(work, "an eviction")
        clean_orphans(database)
        return there

    def status(self) -> StoreStatus:
        """Count nodes, relationships and traces."""
        from tracestore.store.neo4j.inspection import read_status

        return read_status(self._database, self._url, self._version)

    def check(self) -> CheckReport:
        """Look for missing constraints, broken identities, orphans and missing rows."""
        from tracestore.store.neo4j.inspection import check_store

        return check_store(self._database)

    def begin_rebuild(self) -> Callable[[], int]:
        """Count every READY trace as absent from here on; the function given deletes those that were not loaded again."""
        found = self._write().rows("MATCH (c:StoreCounter {name: 'trace_no'}) RETURN c.value")
        self._floor = int(found[0][0]) if found else 0

        def finish() -> int:
            def work(transaction: neo4j.Transaction) -> int:
                return ledger.forget_older(transaction, self._floor)

            gone = self._database.write(work, "the end of a rebuild")
            self._floor = 0
            clean_orphans(self._database)
            return gone

        return finish


@contextmanager
def rebuild_neo4j(url: str) -> Iterator[Neo4jStore]:
    """Give the store to fill anew, trace by trace: each new generation takes the place of the old one when it is complete.

    A community server has one database, so there is no second store to fill beside the first. When the block ends without an error, what
    was not loaded again is deleted; EVICTED ids stay evicted. Readers see complete traces all the time.
    """
    with open_neo4j(url) as store:
        finish = store.begin_rebuild()
        yield store
        finish()
