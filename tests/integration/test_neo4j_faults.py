"""What goes wrong with a server and its loaders: afterwards the graph equals what was sent, or nothing of it is visible."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.bolt_proxy import BoltProxy
from tests.support.neo4j_server import TestServer
from tests.support.store_counts import counts_of
from tests.support.store_graph import bundle_of, differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.errors import ShortCountError, StoreLockedError, StoreUnavailableError, StoreVersionError
from tracestore.store.migration_files import Migration, known_migrations
from tracestore.store.neo4j import writing
from tracestore.store.neo4j.connection import make_driver
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.migrations import apply_migrations
from tracestore.store.neo4j.store import Neo4jStore
from tracestore.store.neo4j.writers import LoadSettings

SMALL = LoadSettings(batch_rows=200, writers=2)

LOADER = """
import os, signal, sys
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.store import open_neo4j
from tracestore.store.neo4j.writers import LoadSettings

kill_at = int(sys.argv[1])
steps = 0

def step(_=None):
    global steps
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

write = Database.write

def writing(self, work, subject):
    done = write(self, work, subject)
    if kill_at == 0 and subject == "the last step of a load":
        os.kill(os.getpid(), signal.SIGKILL)
    return done

Database.write = writing
with open_neo4j(os.environ["NEO4J_URI"], allow_plain=True, settings=LoadSettings(batch_rows=200, writers=2)) as store:
    store.load(bundle_of(make_traces(4, n_outputs=2)), level="mechanism", progress=step)
"""


@pytest.fixture
def store(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    with neo4j_server.open_empty(settings=SMALL) as opened:
        yield opened


def assert_equals_what_was_sent(store: Neo4jStore, server: TestServer, count: int) -> None:
    traces = make_traces(count, n_outputs=2)
    assert differences(stored_graph(store), expected_graph(traces)) == []
    _, edges = counts_of(traces, level="mechanism")
    status = store.status()
    assert {name: found for name, found in status.edges.items() if found} == edges  # the graph's sets would not see a double
    assert status.traces == {"READY": count, "LOADING": 0, "RETIRED": 0, "EVICTED": 0}
    assert store.check().problems == ()
    assert server.run("MATCH (n) WHERE n:StoreClaim OR n:StoreLease OR n:StoreBatch RETURN count(n)") == [[0]]


@pytest.mark.parametrize(("kill_at", "visible"), [(1, 0), (5, 0), (0, 4)], ids=["first batch", "later batch", "after READY"])
def test_a_killed_loader_leaves_nothing_partial_and_the_next_one_resumes(neo4j_server: TestServer, kill_at: int, visible: int) -> None:
    neo4j_server.empty()
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(kill_at)],
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **neo4j_server.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert neo4j_server.run("MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN count(t)") == [[visible]]
    assert neo4j_server.run("MATCH (n:StoreBatch) RETURN count(n) > 0") == [[visible == 0]]  # the last step takes them away
    with neo4j_server.open(settings=SMALL) as store:  # takes over at once: the holder of the lease is dead
        assert len(store.ready()) == visible
        assert store.status().nodes["Token"] == visible * 8  # the rest of it was deleted on opening
        report = store.load(bundle_of(make_traces(4, n_outputs=2)), level="mechanism")
        assert (len(report.loaded), len(report.skipped)) == (4 - visible, visible)
        assert_equals_what_was_sent(store, neo4j_server, 4)


def test_a_second_loader_neither_duplicates_nor_waits(store: Neo4jStore, neo4j_server: TestServer) -> None:
    traces = make_traces(4, n_outputs=2)
    reports = []
    started = threading.Event()

    def other_loader(_: int) -> None:
        if not started.is_set():
            started.set()
            with neo4j_server.open() as second:
                reports.append(second.load(bundle_of(traces), level="mechanism"))

    first = store.load(bundle_of(traces[:3]), level="mechanism", progress=other_loader)
    assert len(first.loaded) == 3
    assert reports[0].busy == first.loaded
    assert reports[0].loaded == (traces[3].trace_id,)
    again = store.load(bundle_of(traces), level="mechanism")
    assert (again.loaded, again.busy, len(again.skipped)) == ((), (), 4)
    assert_equals_what_was_sent(store, neo4j_server, 4)


def test_a_loader_whose_lease_was_buried_writes_nothing_more(store: Neo4jStore, neo4j_server: TestServer) -> None:
    bundle = bundle_of(make_traces(3, n_outputs=2))
    arrived: list[int] = []

    def bury(edges: int) -> None:
        arrived.append(edges)
        neo4j_server.run("MATCH (l:StoreLease) DELETE l")

    with pytest.raises(StoreLockedError, match="load again"):
        store.load(bundle, level="mechanism", progress=bury)
    assert len(arrived) <= 2  # each of the two writers may have been past its commit
    assert store.ready() == frozenset()
    assert sum(store.status().nodes.values()) == 0
    store.load(bundle, level="mechanism")
    assert_equals_what_was_sent(store, neo4j_server, 3)


def test_a_lease_ends_by_the_servers_clock(store: Neo4jStore, neo4j_server: TestServer) -> None:
    traces = make_traces(2, n_outputs=2)
    store.load(bundle_of(traces[:1]), level="mechanism")
    claim = "CREATE (:StoreLease {load_id: 'x', machine: 'elsewhere', process: '1:1', expires_at: timestamp() + $ms}) "
    claim += "CREATE (:StoreClaim {claim_id: 'load:77', kind: 'load', trace_id: $id, trace_no: 77, load_id: 'x'})"
    neo4j_server.run(claim, ms=3_600_000, id=traces[1].trace_id)
    assert store.load(bundle_of(traces), level="mechanism").busy == (traces[1].trace_id,)
    neo4j_server.run("MATCH (l:StoreLease) SET l.expires_at = timestamp() - 1")
    assert store.load(bundle_of(traces), level="mechanism").loaded == (traces[1].trace_id,)
    assert_equals_what_was_sent(store, neo4j_server, 2)


def test_a_trace_evicted_while_it_loads_does_not_appear(store: Neo4jStore) -> None:
    traces = make_traces(2)

    def evict(_: int) -> None:
        store.evict([traces[0].trace_id])

    report = store.load(bundle_of(traces), progress=evict)
    assert (report.loaded, report.skipped) == ((traces[1].trace_id,), (traces[0].trace_id,))
    assert store.ready() == {traces[1].trace_id}
    assert store.check().problems == ()


@pytest.fixture
def proxy(neo4j_server: TestServer) -> Iterator[BoltProxy]:
    target = urlsplit(neo4j_server.uri)
    assert target.hostname is not None
    with BoltProxy(target.hostname, target.port or 7687) as opened:
        yield opened


def through(proxy: BoltProxy, server: TestServer) -> TestServer:
    return replace(server, uri=f"bolt://127.0.0.1:{proxy.port}")


@pytest.mark.parametrize("seconds", [1.0, *([30.0] if "TRACESTORE_CRASH_KILLS" in os.environ else [])])
def test_a_cut_line_is_waited_for(neo4j_server: TestServer, proxy: BoltProxy, seconds: float) -> None:
    cuts = 0

    def cut(_: int) -> None:
        nonlocal cuts
        cuts += 1
        if cuts == 2:
            proxy.cut(seconds)

    neo4j_server.empty()
    with through(proxy, neo4j_server).open(settings=SMALL, patience_s=120.0) as store:
        store.load(bundle_of(make_traces(3, n_outputs=2)), level="mechanism", progress=cut)
        assert cuts > 2
        assert_equals_what_was_sent(store, neo4j_server, 3)


def test_a_commit_whose_answer_is_lost_is_not_done_twice(neo4j_server: TestServer, proxy: BoltProxy) -> None:
    with through(proxy, neo4j_server).open_empty(settings=SMALL) as store:
        proxy.swallow_every_other_answer_to_commit(True)  # of claim, batches, flip and cleaning
        report = store.load(bundle_of(make_traces(3, n_outputs=2)), level="mechanism")
        proxy.swallow_every_other_answer_to_commit(False)
        assert proxy.swallowed > 2
        assert len(report.loaded) == 3
        assert_equals_what_was_sent(store, neo4j_server, 3)


def test_a_server_that_stays_away_is_reported(neo4j_server: TestServer, proxy: BoltProxy) -> None:
    with through(proxy, neo4j_server).open_empty(settings=SMALL) as store:
        store._database._patience_s = 0.2
        with pytest.raises(StoreUnavailableError, match="run the command again"):
            store.load(bundle_of(make_traces(2)), progress=lambda _: proxy.cut(60.0))
    with neo4j_server.open(settings=SMALL) as after:  # our own lease, in this very process, which is alive
        neo4j_server.run("MATCH (l:StoreLease) SET l.expires_at = 0")
        assert after.ready() == frozenset()
        after.load(bundle_of(make_traces(2, n_outputs=2)), level="mechanism")
        assert_equals_what_was_sent(after, neo4j_server, 2)


def test_the_chain_of_migrations_is_kept_and_has_one_writer(store: Neo4jStore, neo4j_server: TestServer) -> None:
    known = known_migrations("neo4j")
    extra = Migration(2, "more", "CREATE INDEX test_more IF NOT EXISTS FOR (n:Trace) ON (n.run_id);\n")
    driver = make_driver(neo4j_server.uri, neo4j_server.credentials)
    database = Database(driver, neo4j_server.credentials.database)
    try:
        with driver.session(database=database.name) as session, session.begin_transaction() as holder:
            holder.run("MATCH (m:StoreMigration {version: 0}) SET m.applied_at = 1").consume()
            with pytest.raises(StoreLockedError, match="has been migrating"):
                apply_migrations(database, "here", [*known, extra], wait_s=0.3)
        assert apply_migrations(database, "here", [*known, extra]) == ["V002__more"]
        assert apply_migrations(database, "here", [*known, extra]) == []
        assert neo4j_server.run("SHOW INDEXES YIELD name, state WHERE name = 'test_more' RETURN state") == [["ONLINE"]]
        with pytest.raises(StoreVersionError, match="does not know: upgrade"):
            neo4j_server.open()
        with pytest.raises(StoreVersionError, match="is not the one in this version"):
            apply_migrations(database, "here", [*known, replace(extra, text="// edited\n" + extra.text)])
    finally:
        neo4j_server.run("MATCH (m:StoreMigration {version: 2}) DELETE m")
        neo4j_server.run("DROP INDEX test_more IF EXISTS")
        driver.close()
    assert store.migrate() == []


@pytest.fixture
def tiny_batches(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    """Batches so small that most hold rows of one table, and are one statement each."""
    with neo4j_server.open_empty(settings=LoadSettings(batch_rows=30, writers=2)) as opened:
        yield opened


def test_a_single_statement_whose_answer_is_lost_is_not_done_twice(tiny_batches: Neo4jStore, neo4j_server: TestServer) -> None:
    store, database, calls, arrived = tiny_batches, tiny_batches._database, 0, 0
    once = database.once

    def lossy(cypher: str, params: Mapping[str, Any]) -> list[list[Any]] | None:
        nonlocal calls, arrived
        calls += 1
        if calls % 3 == 0:
            return None  # never sent
        found = once(cypher, params)
        arrived += found is not None
        return found if calls % 3 == 1 else None  # done, and the answer is lost

    database.once = lossy  # type: ignore[method-assign]
    store.load(bundle_of(make_traces(3, n_outputs=2)), level="mechanism")
    assert calls > 5
    assert arrived > calls // 2
    assert_equals_what_was_sent(store, neo4j_server, 3)


def test_a_short_batch_is_taken_back_and_named(tiny_batches: Neo4jStore, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tiny_batches
    statement = writing.edge_statement
    monkeypatch.setattr(writing, "edge_statement", lambda table: statement(table).replace("(b:Head {uid: r[1]})", "(b:Head {uid: -r[1]})"))
    with pytest.raises(ShortCountError, match=r"rows of VALUE\.State\.Head were sent and 0 arrived"):
        store.load(bundle_of(make_traces(3, n_outputs=2)), level="mechanism")
    monkeypatch.undo()
    assert neo4j_server.run("MATCH (n) WHERE n.trace_no IS NOT NULL RETURN count(n)") == [[0]]
    store.load(bundle_of(make_traces(3, n_outputs=2)), level="mechanism")
    assert_equals_what_was_sent(store, neo4j_server, 3)
