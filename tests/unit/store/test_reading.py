"""Read-only statements: rows, bounds, refusals, and a reader that follows the writer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.store_graph import ask, bundle_of
from tests.support.synthetic import make_trace, make_traces
from tracestore.errors import QueryError
from tracestore.store import open_engine
from tracestore.store.base import Limits
from tracestore.store.ladybug import handle
from tracestore.store.ladybug.reading import with_literal_counts

HEAVY = "UNWIND range(1, 3000000) AS x UNWIND range(1, 1000) AS y RETURN sum(x * y) AS s"


@pytest.fixture
def url(tmp_path: Path) -> str:
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        store.load(bundle_of(make_traces(2, n_tokens=5)))
    return str(tmp_path / "graph.lbug")


@pytest.mark.parametrize("read_only", [True, False])
def test_rows_come_as_a_table_with_names_types_and_nulls(url: str, read_only: bool) -> None:
    with open_engine(url, read_only=read_only) as store:
        query = "UNWIND $values AS v RETURN v AS number, $text AS text, NULL AS nothing, ['a', 'b'] AS words ORDER BY v"
        table = store.run(query, {"values": [3, 1, 2], "text": "déjà"}, Limits()).table
        assert table.column_names == ["number", "text", "nothing", "words"]
        assert table.schema.field("number").type == pa.int64()
        assert table.to_pylist()[0] == {"number": 1, "text": "déjà", "nothing": None, "words": ["a", "b"]}


@pytest.mark.parametrize(("max_rows", "rows", "truncated"), [(4, 4, True), (5, 5, False), (6, 5, False), (None, 5, False), (0, 0, True)])
def test_the_row_limit_says_when_it_cuts(url: str, max_rows: int | None, rows: int, truncated: bool) -> None:
    with open_engine(url, read_only=True) as store:
        found = store.run("UNWIND range(1, 5) AS x RETURN x ORDER BY x", {}, Limits(max_rows=max_rows))
        assert (found.table.column("x").to_pylist(), found.truncated) == (list(range(1, rows + 1)), truncated)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE (:Item {uid: 1})",
        "MATCH (t:Trace) SET t.text = 'x'",
        "MATCH (t:Trace) DETACH DELETE t",
        "DROP TABLE Item",
        "CREATE NODE TABLE Mine(id INT64 PRIMARY KEY)",
    ],
)
def test_a_statement_that_writes_is_refused(url: str, statement: str, read_only: bool) -> None:
    with open_engine(url, read_only=read_only) as store:
        with pytest.raises(QueryError, match="queries only read"):
            store.run(statement, {}, Limits())
        assert ask(store, "MATCH (t:Trace) RETURN count(*) AS n") == [{"n": 2}]


def test_a_query_that_takes_too_long_is_stopped(url: str) -> None:
    with open_engine(url, read_only=True) as store:
        started = time.monotonic()
        with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
            store.run(HEAVY, {}, Limits(timeout_s=0.2))
        assert time.monotonic() - started < 20
        assert ask(store, "RETURN 1 AS one") == [{"one": 1}]  # the limit of one query is not that of the next


def test_mistakes_are_explained_without_the_values(url: str) -> None:
    secret = "what the user typed"
    with open_engine(url, read_only=True) as store:
        for query, words in (("MATC (n) RETURN n", "Parser exception"), ("MATCH (n:Nope) RETURN n", "Nope does not exist")):
            with pytest.raises(QueryError, match=words):
                store.run(query, {"text": secret}, Limits())
        with pytest.raises(QueryError, match="check the types") as caught:
            store.run("RETURN to_int64($text)", {"text": secret}, Limits())
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None
        with pytest.raises(QueryError) as caught:
            store.run("MATCH (t:Trace) RETURN t." + "nope + $text", {"text": "nope"}, Limits())
        assert "nope" not in str(caught.value)


@pytest.mark.parametrize(
    "statement", ["RETURN 1; RETURN 2", "ROLLBACK; CREATE (:Trace {uid: 77})", "RETURN ';' AS a; RETURN 2", "RETURN 1;;"]
)
def test_two_statements_are_refused_before_the_first_runs(url: str, statement: str) -> None:
    with open_engine(url) as store:
        with pytest.raises(QueryError, match="one statement"):
            store.run(statement, {}, Limits())
        assert ask(store, "MATCH (t:Trace) RETURN count(*) AS n;") == [{"n": 2}]
        assert ask(store, "RETURN 'a;b' AS `x;y` // note; here") == [{"x;y": "a;b"}]


def test_a_reader_sees_what_was_committed_since_it_opened(url: str) -> None:
    late = make_trace(9)
    with open_engine(url, read_only=True) as reader, open_engine(url) as writer:
        assert len(reader.ready()) == 2
        writer.load(bundle_of([late]))
        assert late.trace_id in reader.ready()
        writer.evict([late.trace_id])
        assert late.trace_id not in reader.ready()


def test_many_threads_may_read_while_one_loads(url: str) -> None:
    failures: list[str] = []
    with open_engine(url) as store:
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                found = ask(store, "MATCH (t:Trace)<-[:OF]-(o:Output) WHERE t.ready_id IS NOT NULL RETURN t.trace_no AS no, count(*) AS n")
                if any(row["n"] != 1 for row in found) or len(found) % 2:
                    failures.append(str(found))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 4):
            store.load(bundle_of(make_traces(2, first_seed=10 * number)))
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store.ready()) == 8


def test_a_read_counts_only_if_the_pages_stayed_the_same(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes while the first attempt reads: the answer is that of the second."""
    from tracestore.store.ladybug.reading import Reader

    late, once = make_trace(9), Reader._once
    attempts: list[int] = []
    with open_engine(url, read_only=True) as reader, open_engine(url) as writer:

        def read_while_written(self: Reader, *more: Any) -> Any:
            found = once(self, *more)
            attempts.append(found.table.num_rows)
            if len(attempts) == 1:
                monkeypatch.undo()
                writer.load(bundle_of([late]))
                monkeypatch.setattr(Reader, "_once", read_while_written)
            return found

        monkeypatch.setattr(Reader, "_once", read_while_written)
        assert len(ask(reader, "MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.trace_id")) == 3
        assert attempts == [2, 3]


@pytest.mark.parametrize(
    ("statement", "spelt", "left"),
    [
        ("RETURN 1 LIMIT $k", "RETURN 1 LIMIT 3", set()),
        ("RETURN 1 skip  $k limit\n$n", "RETURN 1 skip  3 limit\n4", set()),
        ("RETURN $k LIMIT $k", "RETURN $k LIMIT 3", {"k"}),
        ("RETURN 'LIMIT $k $n' LIMIT $n // LIMIT $k", "RETURN 'LIMIT $k $n' LIMIT 4 // LIMIT $k", {"k"}),
        ("RETURN 1 LIMIT $flag SKIP $low LIMIT $word LIMIT $unknown", None, {"flag", "low", "word"}),
    ],
)
def test_counts_behind_limit_and_skip_are_spelt_out(statement: str, spelt: str | None, left: set[str]) -> None:
    params = {"k": 3, "n": 4, "flag": True, "low": -1, "word": "1"}
    used = {name: value for name, value in params.items() if f"${name}" in statement}
    text, rest = with_literal_counts(statement, used)
    assert (text, set(rest)) == (spelt or statement, left)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_statement_that_is_run_again_takes_its_new_parameters_and_sees_new_rows(url: str, read_only: bool) -> None:
    query = (
        "MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE o.uid = $uid AND t.pos >= $low "
        "RETURN o.uid AS uid, t.pos AS pos ORDER BY pos DESC LIMIT $k"
    )
    with open_engine(url) as store, open_engine(url, read_only=True) as reader:
        asked = reader if read_only else store
        for turn in range(3):
            uids = [row["uid"] for row in ask(asked, "MATCH (o:Output) RETURN o.uid AS uid")]
            assert len(uids) == 2 + 2 * turn
            for uid in uids:
                for low, k in ((0, 3), (2, 3), (3, 1), (9, 3)):
                    expected = [{"uid": uid, "pos": pos} for pos in (4, 3, 2, 1, 0) if pos >= low][:k]
                    found = asked.run(query, {"uid": uid, "low": low, "k": k}, Limits(keep_plan=True)).table
                    assert found.to_pylist() == expected
            store.load(bundle_of(make_traces(2, first_seed=10 * (turn + 1), n_tokens=5)))


@pytest.mark.parametrize("keep_plan", [False, True])
def test_many_statements_do_not_fill_the_engines_memory(url: str, keep_plan: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's binding keeps each statement with parameters, and its plan the memory that it ran in."""
    monkeypatch.setattr(handle, "BUFFER_POOL_BYTES", 48 * 2**20)
    query = (
        "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE h.layer >= $low "
        "RETURN t.model_id AS model, h.layer AS layer, h.head AS head, count(*) AS n, sum(h.share) AS share ORDER BY share DESC LIMIT"
    )
    with open_engine(url, read_only=True) as store:
        for number in range(1, 61):
            assert store.run(f"{query} {number}", {"low": 0}, Limits(keep_plan=keep_plan)).table.num_rows > 0
