"""From the archive to the store: levels, batches, resuming, damage, forgetting, rebuilding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import flip_byte, fresh
from tests.support.store_graph import ask, differences, expected_graph, stored_graph
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.errors import ArchiveError, BadInputError, PartialSuccessError, StoreVersionError
from tracestore.load import LoadPlan, PartialLoadError, attach_output, load_archive, plan_load, planning, rebuild_store
from tracestore.store import open_engine
from tracestore.store.base import TraceBundle


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Twelve traces in three packages, and one appended item."""
    archive = Archive(tmp_path / "archive")
    traces = make_traces(12, n_tokens=6, n_outputs=2)
    for start in (0, 4, 8):
        archive.write(traces[start : start + 4])
    archive.append_items([(traces[5].trace_id, {"item_id": "again", "tags": ["late"], "dataset": "more"})])
    return archive


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "graph.lbug")


def test_everything_arrives_with_the_numbers_that_were_announced(archive: Archive, url: str) -> None:
    plans: list[LoadPlan] = []
    progress: list[int] = []
    with open_engine(url) as store:
        summary = load_archive(archive, store, on_plan=plans.append, progress=progress.append)
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []
        assert (summary.level, summary.message, summary.failures) == ("mechanism", "", ())
        assert set(summary.loaded) == set(archive.trace_ids())
        assert (plans[0].traces, plans[0].edges) == (12, sum(progress))
        assert summary.edges == plans[0].edges + 1  # the OF edge of the appended item
        assert [(batch.traces, len(batch.parts)) for batch in plans[0].batches] == [(12, 3)]  # one transaction over package borders
        again = load_archive(archive, store)
        assert (again.loaded, again.edges, set(again.skipped)) == ((), 0, set(archive.trace_ids()))
        assert store.check().problems == ()


def test_above_a_thousand_outputs_the_summary_level_is_taken_and_said(archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MECHANISM_OUTPUTS", 10)
    first = list(archive.trace_ids())[:5]
    with open_engine(url) as store:
        assert load_archive(archive, store, only=first).level == "mechanism"  # 10 outputs
        summary = load_archive(archive, store)
        assert summary.level == "summary"
        assert "24 outputs" in summary.message
        assert "store attach" in summary.message
        assert len(ask(store, "MATCH (o:Output) WHERE o.mechanism RETURN o.output_id")) == 10
        assert load_archive(archive, store, level="mechanism").message == ""
        output_id = next(iter(archive.read_traces(list(archive.trace_ids())[7:8]))).outputs[0].output_id
        assert attach_output(archive, store, output_id).nodes > 0
        assert attach_output(archive, store, output_id).nodes == 0
        assert store.check().problems == ()
        with pytest.raises(BadInputError, match="does not hold the trace"):
            attach_output(archive, store, "abc:1:2")


def test_a_load_that_was_broken_off_goes_on(archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MIN_TRACES", 3)
    monkeypatch.setattr(planning, "BATCH_ROWS", 1)
    seen = 0

    def stop(edges: int) -> None:
        nonlocal seen
        seen += edges
        if seen > 2_000:
            raise KeyboardInterrupt

    with open_engine(url) as store:
        with pytest.raises(KeyboardInterrupt):
            load_archive(archive, store, progress=stop)
        done = store.ready()
        assert 0 < len(done) < 12
        summary = load_archive(archive, store)
        assert set(summary.loaded) == set(archive.trace_ids()) - done
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []


def test_a_damaged_package_is_reported_and_the_rest_is_loaded(archive: Archive, url: str) -> None:
    package = archive.packages()[1]
    flip_byte(package.path / "Token.parquet", 60)
    with open_engine(url) as store:
        with pytest.raises(PartialLoadError, match=f"8 traces were loaded, 1 packages were not: Package {package.package_id}") as caught:
            load_archive(fresh(archive), store)
        assert isinstance(caught.value, PartialSuccessError)
        assert caught.value.exit_code == 6
        assert set(caught.value.summary.loaded) == store.ready() == set(archive.trace_ids()) - set(package.trace_ids)
        assert len(caught.value.summary.failures) == 1
        assert store.check().problems == ()
        flip_byte(package.path / "Token.parquet", 60)
        assert set(load_archive(fresh(archive), store).loaded) == set(package.trace_ids)


def test_a_trace_forgotten_while_it_is_loaded_does_not_stay(archive: Archive, url: str) -> None:
    victim = archive.trace_ids()[2]
    other = Archive(archive.path)

    def forget(_: int) -> None:
        if victim not in other.forgotten():
            other.forget([victim])

    with open_engine(url) as store:
        summary = load_archive(archive, store, progress=forget)
        assert victim not in summary.loaded
        assert victim not in store.ready()
        assert len(store.ready()) == 11
        assert store.check().problems == ()


def test_a_compaction_while_loading_is_followed(archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MIN_TRACES", 3)
    monkeypatch.setattr(planning, "BATCH_ROWS", 1)
    victim, compacted = archive.trace_ids()[11], False

    def compact(_: int) -> None:
        nonlocal compacted
        if not compacted:
            compacted = True
            other = Archive(archive.path)
            other.forget([victim])
            other.compact()

    with open_engine(url) as store:
        load_archive(archive, store, progress=compact)
        assert store.ready() == set(archive.trace_ids())
        assert len(store.ready()) == 11
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []


def test_an_archive_of_a_newer_schema_is_refused(archive: Archive, url: str) -> None:
    from tests.support.archives import change_manifest

    change_manifest(archive.packages()[0].path, schema_version=99)
    with open_engine(url) as store, pytest.raises(ArchiveError, match="upgrade tracestore"):
        load_archive(fresh(archive), store)


def test_packages_of_an_older_schema_are_named_and_alone_refused(archive: Archive, url: str) -> None:
    from tests.support.archives import change_manifest

    first, *others = archive.packages()
    change_manifest(first.path, schema_version=1)
    with open_engine(url) as store:
        summary = load_archive(fresh(archive), store)
        assert len(summary.loaded) == 8
        assert f"not read: 1. Package {first.package_id} has schema version 1, older than" in summary.message
        for package in others:
            change_manifest(package.path, schema_version=1)
        with pytest.raises(ArchiveError, match="trace again what it holds"):
            load_archive(fresh(archive), store)
    with pytest.raises(ArchiveError, match="trace again what it holds"):
        rebuild_store(fresh(archive), url)
    with open_engine(url) as store:
        assert len(store.ready()) == 8  # the store that cannot be rebuilt stays


def test_batches_have_ten_traces_and_bounded_rows(archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_engine(url) as store:
        whole = plan_load(archive, store, level="mechanism")
        monkeypatch.setattr(planning, "BATCH_ROWS", 1)
        assert [batch.traces for batch in plan_load(archive, store, level="mechanism").batches] == [10, 2]
        monkeypatch.setattr(planning, "MAX_ROWS", whole.edges // 4)
        plan = plan_load(archive, store, level="mechanism")
        assert len(plan.batches) > 4
        assert all(batch.edges < whole.edges // 4 for batch in plan.batches)
        assert sum(batch.edges for batch in plan.batches) == whole.edges
        monkeypatch.setattr(planning, "MAX_ROWS", 1)
        assert [batch.traces for batch in plan_load(archive, store, level="mechanism").batches] == [1] * 12


def test_rebuild_drops_deleted_text_and_keeps_what_the_archive_does_not_know(tmp_path: Path, url: str) -> None:
    words = "a sentence that nobody should find again in these bytes"
    archive = Archive(tmp_path / "archive")
    secret = make_traces(1, text=words)[0]
    others = make_traces(6, first_seed=20, n_tokens=6)
    archive.write([secret, *others])
    path = Path(url)
    with open_engine(url) as store:
        load_archive(archive, store, level="summary")
        chosen = others[2].outputs[0].output_id
        attach_output(archive, store, chosen)
        store.evict([secret.trace_id])
        highest = ask(store, "MATCH (c:StoreCounter {name: 'trace_no'}) RETURN c.value AS value")[0]["value"]
    assert words.encode() in path.read_bytes()  # deleting does not clean the file
    archive.forget([secret.trace_id])
    archive.compact()
    rebuild_store(archive, url)
    for file in tmp_path.glob("graph.lbug*"):
        assert words.encode() not in file.read_bytes(), file.name
    with open_engine(url) as store:
        assert store.evicted() == {secret.trace_id}
        assert differences(stored_graph(store), expected_graph(others)) == []
        assert ask(store, "MATCH (t:Trace) RETURN min(t.trace_no) AS least")[0]["least"] > highest
    assert sorted(file.name for file in tmp_path.glob("graph.lbug*")) == ["graph.lbug", "graph.lbug.engine.json", "graph.lbug.lock"]


def test_rebuild_attaches_again_what_was_attached(archive: Archive, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MECHANISM_OUTPUTS", 3)
    output_id = next(iter(archive.read_traces())).outputs[1].output_id
    with open_engine(url) as store:
        load_archive(archive, store)
        attach_output(archive, store, output_id)
    assert rebuild_store(archive, url).level == "summary"
    with open_engine(url) as store:
        assert differences(stored_graph(store), expected_graph(archive.read_traces(), [output_id])) == []


def test_a_failed_rebuild_leaves_the_old_store(archive: Archive, url: str) -> None:
    with open_engine(url) as store:
        load_archive(archive, store)
        before = stored_graph(store)
    flip_byte(archive.packages()[0].path / "Token.parquet", 60)
    with pytest.raises(PartialLoadError):
        rebuild_store(fresh(archive), url)
    with open_engine(url) as store:
        assert differences(stored_graph(store), before) == []
        assert len(store.ready()) == 12


def test_rebuild_mends_a_store_of_another_version(archive: Archive, url: str) -> None:
    with open_engine(url) as store:
        load_archive(archive, store)
    with Path(url).open("r+b") as file:
        file.seek(4)
        file.write(b"\x01")
    with pytest.raises(StoreVersionError, match="store rebuild"):
        open_engine(url)
    rebuild_store(archive, url)
    with open_engine(url) as store:
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []


READER = """
import sys
from tracestore.store import open_engine
from tracestore.store.base import Limits
print("up", flush=True)
seen = set()
with open_engine(sys.argv[1], read_only=True) as store:
    while max(seen, default=0) < 12:
        query = "MATCH (t:Trace) WHERE t.ready_id IS NOT NULL MATCH (t)<-[:OF]-(n:Token) RETURN t.trace_no AS no, count(*) AS n"
        rows = store.run(query, {}, Limits()).table.to_pylist()
        assert all(row["n"] == 6 for row in rows), rows
        seen.add(len(rows))
print(sorted(seen))
"""


def test_a_reader_in_another_process_sees_whole_batches_only(archive: Archive, url: str) -> None:
    command = [sys.executable, "-c", READER, url]
    with open_engine(url) as store, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "up\n"
        for package in archive.packages():
            for part in archive.bundles(package):
                store.load(TraceBundle(part.trace_ids, part.tables), level="mechanism")
        said, errors = reader.communicate(timeout=120)
    assert reader.returncode == 0, errors
    counts: Any = set(map(int, said.strip("[]\n").split(", ")))
    assert counts <= {0, 4, 8, 12}
    assert 12 in counts


FULL = """
import resource, sys
from tracestore.archive import Archive
from tracestore.errors import ResourceError, StoreError
from tracestore.load import load_archive
from tracestore.store import open_engine
archive, store = Archive(sys.argv[1]), open_engine(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
for kind in (ResourceError, StoreError):  # the second time: an earlier write failed
    try:
        load_archive(archive, store, level="mechanism")
    except kind as error:
        print(type(error).__name__, str(error))
store.close()
"""


def test_a_full_disk_is_said_and_loses_nothing(archive: Archive, url: str) -> None:
    first = list(archive.trace_ids())[:3]
    with open_engine(url) as store:
        load_archive(archive, store, only=first, level="mechanism")
    room = Path(url).stat().st_size + 100_000
    command = [sys.executable, "-c", FULL, str(archive.path), url, str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = done.stdout.splitlines()
    assert said[0].startswith("ResourceError")
    assert "make room" in said[0]
    assert "an earlier write" in said[1]
    with open_engine(url) as store:
        assert store.ready() == frozenset(first)
        assert store.check().problems == ()
        load_archive(archive, store, level="mechanism")
        assert differences(stored_graph(store), expected_graph(archive.read_traces())) == []
