"""What others do while an archive loads: a second loader, a jumping clock, a forgotten package, a dropped constraint, a full disk.
Afterwards the graph equals the archive, edge for edge, or the error says what is missing and how to go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.neo4j_server import SIZES, TestServer, own_server
from tests.support.small_disk import fill, small_disk
from tests.support.store_graph import differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.errors import StoreError, StoreUnavailableError
from tracestore.load import LoadSummary, load_archive
from tracestore.schema import UID_BITS
from tracestore.store.base import BundleSize, Capabilities
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j import store as engine
from tracestore.store.neo4j.store import Neo4jStore
from tracestore.store.neo4j.writers import LoadSettings

SMALL = LoadSettings(batch_rows=150, writers=2)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Nine traces in three packages."""
    archive = Archive(tmp_path / "archive")
    traces = make_traces(9, n_tokens=5, n_outputs=2)
    for start in (0, 3, 6):
        archive.write(traces[start : start + 3])
    return archive


@pytest.fixture
def store(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    with neo4j_server.open_empty(settings=SMALL) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """One package at a time: three bundles."""
    monkeypatch.setattr(engine, "CAPABILITIES", Capabilities("neo4j", True, True, bundle=BundleSize(1, 3, 10**6, 3), read_ahead=1))


def assert_equals_the_archive(store: Neo4jStore, archive: Archive) -> None:
    assert store.ready() == set(archive.trace_ids())
    assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []
    report = store.check()  # rows by table against what was recorded: a double would show here
    assert report.problems == ()
    assert report.checked["conservation"] > 0


def test_two_loaders_at_once_share_the_archive(archive: Archive, store: Neo4jStore, neo4j_server: TestServer) -> None:
    summaries: list[LoadSummary] = []
    both = threading.Barrier(2, timeout=60)

    def load(opened: Neo4jStore) -> None:
        both.wait()
        summaries.append(load_archive(Archive(archive.path), opened, level="mechanism"))

    with neo4j_server.open(settings=SMALL) as second:
        loaders = [threading.Thread(target=load, args=(opened,)) for opened in (store, second)]
        for loader in loaders:
            loader.start()
        for loader in loaders:
            loader.join(120)
    assert len(summaries) == 2, "a loader failed, or waits for ever"
    first, other = (set(summary.loaded) for summary in summaries)
    assert first & other == set()
    assert first | other == set(archive.trace_ids())
    assert_equals_the_archive(store, archive)


def test_a_clock_that_jumps_costs_no_lease(
    archive: Archive, store: Neo4jStore, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    years = 0.0
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + years * 31_557_600)
    busy: list[int] = []

    def jump(_: int) -> None:
        nonlocal years
        years = -20.0 if years > 0 else 10.0
        if not busy:
            with neo4j_server.open(settings=SMALL) as other:  # buries whoever seems dead
                busy.append(len(load_archive(Archive(archive.path), other, level="mechanism", only=archive.packages()[0].trace_ids).busy))

    summary = load_archive(archive, store, level="mechanism", progress=jump)
    assert busy == [3]
    assert (len(summary.loaded), summary.busy) == (9, ())
    assert_equals_the_archive(store, archive)


@pytest.mark.parametrize("compacted", [False, True], ids=["forgotten", "forgotten and compacted"])
def test_a_package_that_is_forgotten_while_it_loads_does_not_stay(archive: Archive, store: Neo4jStore, compacted: bool) -> None:
    gone = archive.packages()[0].trace_ids
    other = Archive(archive.path)

    def forget(_: int) -> None:
        if not other.forgotten():
            other.forget(gone)
            if compacted:
                other.compact()

    summary = load_archive(archive, store, level="mechanism", progress=forget)
    assert set(summary.loaded) == set(archive.trace_ids())
    assert store.evicted() == set(gone)
    assert_equals_the_archive(store, archive)


def test_a_dropped_constraint_is_made_again_before_anything_is_written(
    archive: Archive, store: Neo4jStore, neo4j_server: TestServer
) -> None:
    neo4j_server.run("DROP CONSTRAINT state_uid")
    neo4j_server.run("DROP INDEX output_text")
    assert any("state_uid is missing" in problem for problem in store.check().problems)
    with neo4j_server.open(settings=SMALL) as again:
        assert sorted(again.applied) == ["output_text", "state_uid"]
        names = "SHOW INDEXES YIELD name, state WHERE name IN ['state_uid', 'output_text'] RETURN name, state ORDER BY name"
        assert neo4j_server.run(names) == [["output_text", "ONLINE"], ["state_uid", "ONLINE"]]
        load_archive(archive, again, level="mechanism")
        assert_equals_the_archive(again, archive)


def test_a_constraint_that_cannot_be_made_again_is_named(archive: Archive, store: Neo4jStore, neo4j_server: TestServer) -> None:
    neo4j_server.run("DROP CONSTRAINT span_uid")
    neo4j_server.run("CREATE (:Span {uid: 7}) CREATE (:Span {uid: 7})")
    try:
        with pytest.raises(StoreError, match=r"span_uid is missing and cannot be made again.*store rebuild"):
            neo4j_server.open()
    finally:
        neo4j_server.run("MATCH (s:Span {uid: 7}) DELETE s")
    assert store.migrate() == ["span_uid"]
    load_archive(archive, store, level="mechanism")
    assert_equals_the_archive(store, archive)


def test_a_lease_that_ends_just_before_the_claim_is_cleaned_up_after(
    archive: Archive, store: Neo4jStore, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look for orphans found it alive still; the claim, a moment later, buried it."""
    neo4j_server.run(
        "CREATE (:StoreLease {load_id: 'gone', machine: 'elsewhere', process: '1', expires_at: 0}) "
        "CREATE (:StoreClaim {claim_id: 'load:900', kind: 'load', trace_id: 'lost', trace_no: 900, load_id: 'gone'}) "
        "CREATE (:State {uid: $uid})",
        uid=(900 << UID_BITS) + 5,
    )
    monkeypatch.setattr(ledger, "has_orphans", lambda database: False)
    load_archive(archive, store, level="mechanism")
    assert_equals_the_archive(store, archive)
    assert neo4j_server.run("MATCH (k:StoreClaim) RETURN count(k)") == [[0]]


def test_a_full_disk_is_said_and_the_load_goes_on_when_there_is_room(archive: Archive, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk, own_server(disk / "home") as server:
        assert server.local is not None
        with server.open(settings=SMALL, patience_s=2.0) as store:
            load_archive(archive, store, level="mechanism", only=archive.packages()[0].trace_ids)
            fill(disk / "ballast", 64 * 1024)
            with pytest.raises(StoreUnavailableError, match=r"often a full disk.*run the same command again"):
                load_archive(archive, store, level="mechanism")
        server.local.kill()
        (disk / "ballast").unlink()
        server.local.start(sizes=SIZES)
        with server.open(settings=SMALL) as store:
            assert store.ready() >= set(archive.packages()[0].trace_ids)
            assert store.check().problems == ()
            deadline = time.monotonic() + 90  # the lease of the load that failed must end first
            while load_archive(archive, store, level="mechanism").busy:
                assert time.monotonic() < deadline
            assert_equals_the_archive(store, archive)
