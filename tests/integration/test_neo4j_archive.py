"""Archive to a real Neo4j: read ahead, several writers, per-package report, traces in other hands, damage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.archives import flip_byte, fresh, table_path
from tests.support.command_line import ok
from tests.support.neo4j_server import TestServer
from tests.support.store_graph import differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tests.support.tiny_text_model import tiny_loaded
from tracestore import verify
from tracestore.archive import Archive
from tracestore.extract.trace import trace
from tracestore.load import PackageLoad, PartialLoadError, load_archive
from tracestore.model import TraceOptions
from tracestore.store.base import BundleSize, Capabilities
from tracestore.store.neo4j import store as engine
from tracestore.store.neo4j.store import Neo4jStore
from tracestore.store.neo4j.writers import LoadSettings


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Nine traces in three packages, and one appended item."""
    archive = Archive(tmp_path / "archive")
    traces = make_traces(9, n_tokens=5, n_outputs=2)
    for start in (0, 3, 6):
        archive.write(traces[start : start + 3])
    archive.append_items([(traces[4].trace_id, {"item_id": "again", "tags": ["late"]})])
    return archive


@pytest.fixture
def store(neo4j_server: TestServer) -> Iterator[Neo4jStore]:
    with neo4j_server.open_empty(settings=LoadSettings(batch_rows=150)) as opened:
        yield opened


def small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """One package at a time: three bundles."""
    monkeypatch.setattr(engine, "CAPABILITIES", Capabilities("neo4j", True, True, bundle=BundleSize(1, 3, 10**6, 3), read_ahead=1))


def test_an_archive_arrives_whole_by_several_writers(archive: Archive, store: Neo4jStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bundles(monkeypatch)
    progress: list[int] = []
    summary = load_archive(archive, store, writers=2, progress=progress.append)
    assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []
    assert summary.edges == sum(progress) + 1  # the OF edge of the appended item
    assert summary.packages == tuple(PackageLoad(package.package_id, 3, 3, 0) for package in archive.packages())
    again = load_archive(archive, store, writers=2)
    assert (again.loaded, again.edges, again.packages) == ((), 0, ())
    assert store.check().problems == ()


def test_effects_on_a_head_that_had_no_summary_arrive_with_one(tmp_path: Path, store: Neo4jStore) -> None:
    model, archive = tiny_loaded(), Archive(tmp_path / "archive")
    made = trace(model, "Paris is in", TraceOptions())
    archive.write([replace(made, tables={**made.tables, "HeadSummary": made.table("HeadSummary").slice(0, 2)})])
    load_archive(archive, store)
    before = stored_graph(store)
    verify(model, archive, made.outputs[0].output_id, kind="head", top=5)
    summary = load_archive(archive, store)
    written = archive.read_trace(made.trace_id)
    new = written.table("HeadSummary").num_rows - 2
    assert new >= 3
    assert summary.edges == new + 5  # an OF edge of every new summary, a KNOCKOUT of every head
    assert differences(stored_graph(store), expected_graph([written])) == []
    assert differences(before, stored_graph(store)) != []
    assert load_archive(archive, store).edges == 0
    assert store.check().problems == ()


def test_traces_of_another_loader_are_tried_again_at_the_end(
    archive: Archive, store: Neo4jStore, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bundles(monkeypatch)
    taken = archive.packages()[0].trace_ids
    neo4j_server.run(
        "CREATE (:StoreLease {load_id: 'x', machine: 'elsewhere', process: '1:1', expires_at: timestamp() + 3600000}) "
        "WITH 1 AS one UNWIND range(0, size($ids) - 1) AS i "
        "CREATE (:StoreClaim {claim_id: 'load:' + toString(900 + i), kind: 'load', trace_id: $ids[i], trace_no: 900 + i, load_id: 'x'})",
        ids=list(taken),
    )
    first = load_archive(archive, store)
    assert (set(first.busy), len(first.loaded)) == (set(taken), 6)
    assert first.packages[0] == PackageLoad(archive.packages()[0].package_id, 3, 0, 3)
    assert "3 traces are being loaded by another process" in first.message
    done = threading.Event()

    def end_the_other(_: int) -> None:  # while the second package of an empty store is being written
        if not done.is_set():
            done.set()
            neo4j_server.run("MATCH (l:StoreLease {load_id: 'x'}) SET l.expires_at = 0")

    store.evict(first.loaded)
    neo4j_server.run("MATCH (t:StoreTrace) DELETE t")
    second = load_archive(archive, store, progress=end_the_other)
    assert (second.busy, len(second.loaded)) == ((), 9)
    assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []


def test_a_damaged_package_is_named_and_the_others_are_there(archive: Archive, store: Neo4jStore, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bundles(monkeypatch)
    hurt = archive.packages()[1]
    flip_byte(table_path(hurt, "Token"), 40)
    with pytest.raises(PartialLoadError, match=hurt.package_id) as failed:
        load_archive(fresh(archive), store, level="mechanism")
    report = failed.value.summary.packages
    assert [(one.loaded, bool(one.failure)) for one in report] == [(3, False), (0, True), (3, False)]
    assert store.ready() == {name for package in archive.packages() if package is not hurt for name in package.trace_ids}
    assert store.check().problems == ()


def test_the_commands_take_the_same_flags_on_a_server(archive: Archive, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    neo4j_server.empty()
    for name, value in {**neo4j_server.environment, "TRACESTORE_ALLOW_PLAIN": "1"}.items():
        monkeypatch.setenv(name, value)
    places = ("--archive", archive.path, "--store", neo4j_server.uri, "--json")
    told = ok("load", "--level", "summary", "--writers", "2", *places).json
    assert (told["loaded"], told["level"], told["busy"], len(told["packages"])) == (9, "summary", 0, 3)
    output_id = next(iter(archive.read_traces())).outputs[0].output_id
    assert ok("store", "attach", output_id, *places).json["edges"] > 0
    assert ok("store", "check", "--store", neo4j_server.uri, "--json").json["ok"] is True


def test_ingest_into_a_server(tmp_path: Path, neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.tiny_text_model import save_tiny

    neo4j_server.empty()
    for name, value in {**neo4j_server.environment, "TRACESTORE_ALLOW_PLAIN": "1"}.items():
        monkeypatch.setenv(name, value)
    items = tmp_path / "items.txt"
    items.write_text("The capital of France is\nWhere is the tower?\n", encoding="utf-8")
    options = ("--model", save_tiny(tmp_path / "tiny"), "--archive", tmp_path / "a", "--store", neo4j_server.uri, "--json")
    told = ok("ingest", "--items", items, "--writers", "2", *options).json
    assert (told["load"]["loaded"], told["load"]["level"]) == (2, "mechanism")
    traced = Archive(tmp_path / "a", create=False)
    with neo4j_server.open() as store:
        assert differences(stored_graph(store), expected_graph(traced.read_traces())) == []
        assert store.check().problems == ()
