"""The chain of schema changes of an embedded store.

1. Refuse a store whose chain has a number that we do not have (a newer store) or another checksum (a changed file).
2. Run what is missing, statement by statement (each is safe to repeat, so a killed migration is simply run again).
3. Record it, in a transaction of its own: schema and data never share one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tracestore.store.ladybug.ddl import BOOKKEEPING
from tracestore.store.ladybug.handle import Handle
from tracestore.store.migration_files import Migration, known_migrations, still_missing


def _applied(handle: Handle) -> dict[int, tuple[str, str]]:
    tables = {str(row[0]) for row in handle.rows("CALL show_tables() RETURN name")}
    if "StoreMigration" not in tables:
        return {}
    found = handle.rows("MATCH (m:StoreMigration) RETURN m.version, m.name, m.checksum")
    return {int(number): (str(name), str(checksum)) for number, name, checksum in found}


def pending_migrations(handle: Handle, known: Sequence[Migration] | None = None) -> list[Migration]:
    """List what has not been applied (`known` None: what this version brings). Raises StoreVersionError."""
    ours = known_migrations("ladybug") if known is None else known
    return still_missing(ours, _applied(handle), str(handle.files.database))


def apply_migrations(handle: Handle, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing; give the names. Raises StoreVersionError for a newer store or a changed step."""
    pending = pending_migrations(handle, known)
    for migration in pending:
        for statement in (BOOKKEEPING[0].rstrip(";"), *migration.statements):
            handle.change(statement)
        handle.change(
            "CREATE (:StoreMigration {version: $version, name: $name, checksum: $checksum, applied_at: $now})",
            {"version": migration.version, "name": migration.name, "checksum": migration.checksum, "now": time.time_ns() // 1_000_000},
        )
    return [migration.file_name for migration in pending]
