"""Loading whole traces: exactly what was given, all or nothing, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store_graph import ask, bundle_of, differences, expected_graph, stored_graph
from tests.support.synthetic import make_trace, make_traces
from tracestore import schema
from tracestore.errors import BadInputError, IntegrityError, ShortCountError, StoreError
from tracestore.model import Trace
from tracestore.store import open_engine
from tracestore.store.base import Limits, LoadLevel, Store, TraceBundle
from tracestore.store.ladybug import ingest


def sorted_table(table: pa.Table) -> pa.Table:
    """Sort by the key columns (a relationship also by its properties)."""
    keys = [name for name in table.column_names if not pa.types.is_list(table.schema.field(name).type)]
    return table.sort_by([(name, "ascending") for name in keys]).combine_chunks()


def part_of(trace: Trace, output_id: str) -> dict[str, pa.Table]:
    """Cut from a trace what belongs to one Output, as `read_output` promises it."""
    local = next(row["local"] for row in trace.table("Output").to_pylist() if row["output_id"] == output_id)
    kept: dict[str, set[int]] = {}
    tables: dict[str, pa.Table] = {}
    for label, node in schema.NODE_BY_LABEL.items():
        table = trace.table(label)
        if any(c.kind == "ref" for c in node.columns):
            table = table.filter(pc.equal(table["output_uid"], pa.scalar(local, pa.int64())))
        elif label == "Output":
            table = table.filter(pc.equal(table["local"], pa.scalar(local, pa.int64())))
        tables[label], kept[label] = table, {int(value) for value in table["local"].to_pylist() if value is not None}
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        if edge.archived:
            rows = zip(trace.table(name)["src"].to_pylist(), trace.table(name)["dst"].to_pylist(), strict=True)
            mine = [a in kept[source] and b in kept[target] for a, b in rows]
            tables[name] = trace.table(name).filter(pa.array(mine, pa.bool_()))
    return {name: table for name, table in tables.items() if table.num_rows}


@pytest.mark.parametrize("parallel", [False, True])
def test_what_is_read_back_is_what_was_written(tmp_path: Path, parallel: bool) -> None:
    traces = make_traces(3, n_tokens=9, n_outputs=2, parallel=parallel, extras=True)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces), level="mechanism")
        for trace in traces:
            for output in trace.outputs:
                found, written = store.read_output(output.output_id), part_of(trace, output.output_id)
                assert sorted(found) == sorted(written)
                for name, table in written.items():
                    assert sorted_table(found[name]).equals(sorted_table(table)), name
                    assert found[name].schema.equals(schema.arrow_schema(name)), name


def test_read_output_names_an_unknown_one(tmp_path: Path) -> None:
    with (
        open_engine(str(tmp_path / "graph.lbug")) as store,
        pytest.raises(BadInputError, match=r"no complete trace .* abc:1:2"),
    ):
        store.read_output("abc:1:2")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_whole_graph_is_the_archive_s(tmp_path: Path, data: st.DataObject) -> None:
    draw = data.draw
    tokens = draw(st.integers(1, 7))
    shape: dict[str, Any] = {"n_tokens": tokens, "n_layers": draw(st.integers(1, 3)), "n_heads": draw(st.integers(1, 3))}
    shape |= {"n_outputs": draw(st.integers(1, min(3, tokens))), "parallel": draw(st.booleans()), "mechanism": draw(st.booleans())}
    traces = make_traces(draw(st.integers(1, 4)), first_seed=draw(st.integers(0, 10**6)), **shape)
    level: LoadLevel = draw(st.sampled_from(("summary", "mechanism")))
    database = tmp_path / "graph.lbug"
    for file in tmp_path.iterdir():
        file.unlink()
    with open_engine(str(database)) as store:
        report = store.load(bundle_of(traces), level=level)
        found = stored_graph(store)
        assert differences(found, expected_graph(traces, None if level == "mechanism" else ())) == []
        assert report.edges == sum(len(found[name]) for name in schema.EDGE_TABLES)
        assert report.nodes == sum(len(found[label]) for label in schema.NODE_BY_LABEL)
        assert store.check().problems == ()


def test_loading_twice_skips_and_changes_nothing(tmp_path: Path) -> None:
    traces = make_traces(4)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        first = store.load(bundle_of(traces[:3]))
        again = store.load(bundle_of(traces))
        assert first.loaded == tuple(trace.trace_id for trace in traces[:3])
        assert (again.loaded, again.skipped) == ((traces[3].trace_id,), first.loaded)
        assert differences(stored_graph(store), expected_graph(traces, ())) == []


def test_replace_brings_a_new_generation_with_fresh_numbers(tmp_path: Path) -> None:
    old = make_trace(1, trace_id="a" * 32, n_tokens=6)
    new = make_trace(2, trace_id="a" * 32, n_tokens=9)
    other = make_trace(3)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of([old, other]), level="mechanism")
        assert store.load(bundle_of([new]), level="mechanism", replace=True).loaded == ("a" * 32,)
        assert differences(stored_graph(store), expected_graph([new, other])) == []
        assert ask(store, "MATCH (t:Trace) RETURN t.trace_no AS no ORDER BY t.trace_no") == [{"no": 2}, {"no": 3}]
        assert store.status().traces == {"READY": 2, "LOADING": 0, "RETIRED": 0, "EVICTED": 0}


def test_numbers_are_never_given_again(tmp_path: Path) -> None:
    trace = make_trace(1)
    numbers = []
    for _ in range(3):
        with open_engine(str(tmp_path / "graph.lbug")) as store:
            store.load(bundle_of([trace]), replace=True)
            numbers += [row["no"] for row in ask(store, "MATCH (t:Trace) RETURN t.trace_no AS no")]
            store.evict([trace.trace_id])
    assert numbers == [1, 2, 3]


def test_evicted_traces_are_gone_and_stay_away(tmp_path: Path) -> None:
    traces = make_traces(3, n_tokens=6)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces), level="mechanism")
        assert store.evict([traces[0].trace_id, traces[0].trace_id, "unknown"]) == 1
        assert store.evict([traces[0].trace_id]) == 0
        assert differences(stored_graph(store), expected_graph(traces[1:])) == []
        assert store.ready() == {trace.trace_id for trace in traces[1:]}
        assert store.evicted() == {traces[0].trace_id, "unknown"}
        assert store.load(bundle_of(traces)).loaded == ()
        assert store.status().traces == {"READY": 2, "LOADING": 0, "RETIRED": 0, "EVICTED": 2}
        assert store.load(bundle_of(traces[:1]), level="mechanism", replace=True).loaded == (traces[0].trace_id,)
        assert differences(stored_graph(store), expected_graph(traces)) == []
        assert store.evicted() == {"unknown"}


def test_a_short_count_leaves_nothing_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = make_traces(2)

    def lose_a_row(connection: Any, statement: str, table: pa.Table, name: str) -> None:
        copy(connection, statement, table.slice(1) if name == "Token" else table, name)

    copy = ingest._copy
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        with monkeypatch.context() as patch:
            patch.setattr(ingest, "_copy", lose_a_row)
            with pytest.raises(StoreError):  # an OF edge has lost its Token: the engine refuses it
                store.load(bundle_of(traces))
            patch.setattr(ingest, "copy_staged", lambda handle, staged, progress=None: None)
            with pytest.raises(ShortCountError, match=r"rows of Trace were sent and the store holds 0"):
                store.load(bundle_of(traces))
        assert store.ready() == frozenset()
        assert stored_graph(store)["orphans"] == set()
        assert store.load(bundle_of(traces)).skipped == ()
        assert store.check().problems == ()


def test_large_tables_are_copied_one_by_one_and_take_less_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = make_traces(2)

    def lists(store: Store) -> set[str]:
        found = ask(store, "CALL storage_info('VALUE') RETURN column_name AS name, compression AS compression")
        return {row["compression"] for row in found if "csr" in row["name"]}

    with open_engine(str(tmp_path / "whole.lbug")) as store:
        store.load(bundle_of(traces), level="mechanism")
        assert "UNCOMPRESSED" in lists(store)
    monkeypatch.setattr(ingest, "OWN_STATEMENT_ROWS", 0)
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        report = store.load(bundle_of(traces), level="mechanism")
        assert differences(stored_graph(store), expected_graph(traces)) == []
        assert sum(store.status().edges.values()) == report.edges
        assert "UNCOMPRESSED" not in lists(store)


def test_a_failure_between_two_tables_is_cleaned_when_the_store_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces, url = make_traces(2, n_outputs=2), str(tmp_path / "graph.lbug")
    copy = ingest._copy
    seen: list[str] = []

    def lose_a_row(connection: Any, statement: str, table: pa.Table, name: str) -> None:
        seen.append(name)
        copy(connection, statement, table.slice(1) if name == "State" else table, name)

    monkeypatch.setattr(ingest, "OWN_STATEMENT_ROWS", 0)
    with open_engine(url) as store:
        with monkeypatch.context() as patch:
            patch.setattr(ingest, "_copy", lose_a_row)
            with pytest.raises(StoreError):  # edges of a State that is not there
                store.load(bundle_of(traces), level="mechanism")
        assert seen[-2:] == ["EMITS.Output.Token", "EMBEDS.Token.State"], "the tables before it were committed"
        with pytest.raises(StoreError, match="open it again"):
            store.load(bundle_of(traces), level="mechanism")
    with open_engine(url) as store:
        assert store.ready() == frozenset()
        assert stored_graph(store)["orphans"] == set()
        store.load(bundle_of(traces), level="mechanism")
        assert differences(stored_graph(store), expected_graph(traces)) == []


def test_what_a_dead_loader_left_is_cleaned_on_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracestore.store.ladybug import cleanup, ledger

    traces = make_traces(2)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(traces[:1]))
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "flip", die)
            patch.setattr(cleanup, "clean", die)
            with pytest.raises(KeyboardInterrupt):
                store.load(bundle_of(traces[1:]), level="mechanism")
        assert store.status().traces == {"READY": 1, "LOADING": 1, "RETIRED": 0, "EVICTED": 0}
        assert store.check().problems == ()  # it is noted as work in hand
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        assert differences(stored_graph(store), expected_graph(traces[:1], ())) == []
        assert store.check().problems == ()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    open_engine(str(tmp_path / "graph.lbug")).close()
    bundle = bundle_of([make_trace(1)])
    with open_engine(str(tmp_path / "graph.lbug"), read_only=True) as store:
        for write in (lambda: store.load(bundle), lambda: store.evict(["x"]), store.migrate, lambda: store.annotate(bundle)):
            with pytest.raises(StoreError, match="reading only"):
                write()


def test_a_bundle_with_one_trace_twice_is_refused(tmp_path: Path) -> None:
    trace = make_trace(1)
    with open_engine(str(tmp_path / "graph.lbug")) as store, pytest.raises(IntegrityError, match="twice"):
        store.load(bundle_of([trace, trace]))


def test_progress_counts_every_edge(tmp_path: Path) -> None:
    seen: list[int] = []
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        report = store.load(bundle_of(make_traces(2)), level="mechanism", progress=seen.append)
        assert sum(seen) == report.edges > 0


def test_an_empty_bundle_is_no_work(tmp_path: Path) -> None:
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        report = store.load(TraceBundle((), {}))
        assert (report.loaded, report.nodes, report.edges) == ((), 0, 0)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store: Store = open_engine(str(tmp_path / "graph.lbug"))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.run("RETURN 1", {}, Limits())
