"""The chain of schema changes of a Neo4j store.

1. Make sure of the one constraint that the chain itself stands on.
2. Hold a lock: an open transaction that has written to the lock node. Whoever dies gives it back with the connection.
3. Read the chain; refuse a newer store or a changed step.
4. Complete an import (`importing.py`): no step is recorded before, so no reader comes in.
5. Run what is missing, each statement in a transaction of its own (each is safe to repeat), await the indexes, then record the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import StoreError, StoreLockedError, StoreUnavailableError
from tracestore.store.migration_files import Migration, known_migrations, still_missing
from tracestore.store.neo4j.connection import load_driver, translate, translated
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.neo4j.ddl import FIRST, schema_statements
from tracestore.store.neo4j.importing import complete_import
from tracestore.store.neo4j.inspection import missing_schema

if TYPE_CHECKING:
    import neo4j

_LOCK_S: Final = 1800.0  # also bounds the migration itself: the lock is an open transaction
_WAITED_TOO_LONG: Final = ("TransactionTimedOut", "LockAcquisitionTimeout", "LockClientStopped")
_INDEX_S: Final = 600
_CHAIN: Final = "MATCH (m:StoreMigration) WHERE m.version > 0 RETURN m.version, m.name, m.checksum"


def _applied(found: Sequence[Sequence[Any]]) -> dict[int, tuple[str, str]]:
    return {int(number): (str(name), str(checksum)) for number, name, checksum in found}


def pending_migrations(database: Database, url: str, known: Sequence[Migration] | None = None) -> list[Migration]:
    """List what has not been applied. Raises StoreVersionError for a newer store or a changed step."""
    return still_missing(known_migrations("neo4j") if known is None else known, _applied(database.rows(_CHAIN)), url)


def apply_migrations(database: Database, url: str, known: Sequence[Migration] | None = None, *, wait_s: float = _LOCK_S) -> list[str]:
    """Apply what is missing; give the names. Raises StoreLockedError when another process has been at it for `wait_s` seconds."""
    steps = known_migrations("neo4j") if known is None else known
    if not pending_migrations(database, url, steps):
        return []
    exceptions = load_driver().exceptions
    database.schema(FIRST)
    with (
        translated("a migration"),
        database.driver.session(database=database.name) as session,
        session.begin_transaction(timeout=wait_s) as lock,
    ):
        try:
            rows(lock, "MERGE (m:StoreMigration {version: 0}) SET m.name = 'lock', m.applied_at = timestamp()")
        except exceptions.Neo4jError as error:
            if any(end in (error.code or "") for end in _WAITED_TOO_LONG):
                raise StoreLockedError(f"another process has been migrating {url} for {wait_s:.0f} s; try again later") from error
            raise translate(error, "a migration") from error
        missing = still_missing(steps, _applied(rows(lock, _CHAIN)), url)
        complete_import(database)
        for migration in missing:
            _apply(database, lock, migration)
        lock.commit()
    return [migration.file_name for migration in missing]


def _apply(database: Database, lock: neo4j.Transaction, migration: Migration) -> None:
    for statement in migration.statements:
        database.schema(statement)
    database.rows(f"CALL db.awaitIndexes({_INDEX_S})")
    rows(
        lock,
        "CREATE (:StoreMigration {version: $version, name: $name, checksum: $checksum, applied_at: timestamp()})",
        {"version": migration.version, "name": migration.name, "checksum": migration.checksum},
    )


def restore_schema(database: Database) -> list[str]:
    """Make constraints and indexes anew that somebody dropped; give their names.

    Without them a load would be slow and nothing would forbid a double. Raises StoreError when one cannot be made.
    """
    lost = missing_schema(database)
    if not lost:
        return []
    for statement in schema_statements():
        if statement.split()[2] in lost:
            try:
                database.schema(statement)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                raise StoreError(
                    f"the constraint or index {statement.split()[2]} is missing and cannot be made again: {error}. "
                    "Where doubled nodes stand in its way, build the store anew: tracestore store rebuild"
                ) from error
    database.rows(f"CALL db.awaitIndexes({_INDEX_S})")
    if still := missing_schema(database):
        raise StoreError(
            f"the constraint or index {still[0]} is missing or not online, and cannot be made again: another one stands in its place. "
            "Drop that one, then run: tracestore store migrate"
        )
    return lost
