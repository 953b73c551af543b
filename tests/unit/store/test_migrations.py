"""The chain of migrations: applied once, recorded, refused when it is not ours."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tracestore.errors import StoreVersionError
from tracestore.store import open_engine
from tracestore.store.ladybug.files import StoreFiles
from tracestore.store.ladybug.handle import Handle
from tracestore.store.ladybug.migrations import apply_migrations
from tracestore.store.migration_files import Migration, known_migrations

SECOND = Migration(2, "colour", "// a column\nALTER TABLE Item ADD IF NOT EXISTS colour STRING;\n")


@pytest.fixture
def handle(tmp_path: Path) -> Handle:
    (tmp_path / "graph.lbug").touch()
    return Handle(StoreFiles(tmp_path / "graph.lbug"), read_only=False)


def test_applied_once_and_recorded(handle: Handle) -> None:
    known = known_migrations("ladybug")
    assert apply_migrations(handle) == ["V001__schema"]
    assert apply_migrations(handle) == []
    assert apply_migrations(handle, [*known, SECOND]) == ["V002__colour"]
    found = handle.rows("MATCH (m:StoreMigration) RETURN m.version, m.name, m.checksum ORDER BY m.version")
    assert found == [
        [1, "schema", hashlib.sha256(known[0].text.encode()).hexdigest()],
        [2, "colour", hashlib.sha256(SECOND.text.encode()).hexdigest()],
    ]
    assert handle.rows("MATCH (m:StoreMigration) WHERE m.applied_at > 1700000000000 RETURN count(*)") == [[2]]
    handle.close()


def test_a_half_applied_migration_is_run_again(handle: Handle) -> None:
    for statement in known_migrations("ladybug")[0].statements[:7]:
        handle.change(statement)
    assert apply_migrations(handle) == ["V001__schema"]
    handle.close()


def test_a_newer_store_and_a_changed_step_are_refused(tmp_path: Path, handle: Handle) -> None:
    known = known_migrations("ladybug")
    apply_migrations(handle, [*known, SECOND])
    handle.close()
    for read_only in (True, False):
        with pytest.raises(StoreVersionError, match=r"migration 2 \(colour\).*upgrade"):
            open_engine(str(tmp_path / "graph.lbug"), read_only=read_only)
    changed = Migration(1, "schema", known[0].text + "\n// later thought\n")
    again = Handle(StoreFiles(tmp_path / "graph.lbug"), read_only=False)
    with pytest.raises(StoreVersionError, match="is not the one in this version"):
        apply_migrations(again, [changed, SECOND])
    again.close()


def test_a_reader_does_not_migrate(tmp_path: Path, handle: Handle) -> None:
    handle.change("CREATE NODE TABLE Other(id INT64 PRIMARY KEY)")
    handle.close()
    with pytest.raises(StoreVersionError, match="tracestore store migrate"):
        open_engine(str(tmp_path / "graph.lbug"), read_only=True)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        assert store.migrate() == []
