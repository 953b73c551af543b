"""kill -9 of a loader, and of the server under a loader, at random moments: the graph is the archive's again, edge for edge, READY never
covers a partial trace, nothing that was reported done is lost.

Long form: TRACESTORE_CRASH_KILLS set to anything (25 kills of the loader, 5 of the server).
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tests.crash.kills import Ledger, assert_sound, run_and_kill
from tests.support.neo4j_server import SIZES, TestServer
from tests.support.store_graph import ask, differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.load import LoadSummary, load_archive
from tracestore.store import open_engine
from tracestore.store.neo4j.writers import LoadSettings

LONG = "TRACESTORE_CRASH_KILLS" in os.environ
LOADER_KILLS = 25 if LONG else 4
SERVER_KILLS = 5 if LONG else 1


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    traces = make_traces(12, n_tokens=8, n_outputs=2, extras=True)
    archive.write(traces[:8])
    archive.write(traces[8:])
    archive.append_items([(traces[0].trace_id, {"item_id": "again", "tags": ["late"]})])
    return archive


def test_random_kills_of_the_loader(archive: Archive, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**neo4j_server.environment, "TRACESTORE_ALLOW_PLAIN": "1"}.items():
        monkeypatch.setenv(name, value)
    neo4j_server.empty()
    url, dice, ledger, highest = neo4j_server.uri, random.Random(20_261), Ledger(), 0
    for kill in range(LOADER_KILLS):
        run_and_kill(archive.path, url, kill, dice, ledger, module="tests.crash.neo4j_child", longest_wait_s=1.5)
        highest = assert_sound(archive, url, ledger, highest)
        left = neo4j_server.run("MATCH (n) WHERE n:StoreClaim OR n:StoreLease OR n:StoreBatch RETURN count(n)")
        assert left == [[0]], "the next one to open the store cleans up"
    with open_engine(url) as store:
        load_archive(archive, store, level="mechanism")
        assert sorted(store.ready() | store.evicted()) == sorted(archive.trace_ids())
        with_mechanism = {row["id"] for row in ask(store, "MATCH (o:Output) WHERE o.mechanism RETURN o.output_id AS id")}
        expected = expected_graph([archive.read_trace(name) for name in store.ready()], with_mechanism)
        assert differences(stored_graph(store), expected) == []
        assert store.check().problems == ()


def test_the_server_is_killed_under_a_loader(archive: Archive, neo4j_server: TestServer) -> None:
    local = neo4j_server.local
    if local is None:
        pytest.skip(f"only a server process of our own can be killed; this is {neo4j_server.rung}")
    dice = random.Random(20_262)
    for _ in range(SERVER_KILLS):
        neo4j_server.empty()
        fall, seen, reached = dice.randrange(1, 25), 0, threading.Event()
        summaries: list[LoadSummary] = []

        def note(_: int, fall: int = fall, reached: threading.Event = reached) -> None:
            nonlocal seen
            seen += 1
            if seen == fall:
                reached.set()

        with neo4j_server.open(settings=LoadSettings(batch_rows=100, writers=2), patience_s=180.0) as store:
            loader = threading.Thread(
                target=lambda store=store, note=note, into=summaries: into.append(
                    load_archive(archive, store, level="mechanism", progress=note)
                )
            )
            loader.start()
            assert reached.wait(120), "the load had fewer batches than thought"
            local.kill()
            local.start(sizes=SIZES)  # at the same port; a READY trace is a whole one before the loader goes on, too
            loader.join(240)
            assert not loader.is_alive(), "the loader did not come back"
            assert len(summaries[0].loaded) == 12
            assert differences(stored_graph(store), expected_graph([archive.read_trace(name) for name in store.ready()])) == []
            assert store.check().problems == ()
        left = neo4j_server.run("MATCH (n) WHERE n:StoreClaim OR n:StoreLease OR n:StoreBatch RETURN count(n)")
        assert left == [[0]]
