"""The parts of the Neo4j engine that need no server: schema text, statements, batches, shares, holders."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore import schema
from tracestore.errors import BadInputError
from tracestore.store.migration_files import known_migrations
from tracestore.store.neo4j import loading
from tracestore.store.neo4j.cleaning import number_runs
from tracestore.store.neo4j.ddl import schema_names, schema_script
from tracestore.store.neo4j.holder import Holder, is_dead, this_process
from tracestore.store.neo4j.loading import share_out
from tracestore.store.neo4j.store import settings_from_environment
from tracestore.store.neo4j.writers import LoadSettings, Pace
from tracestore.store.neo4j.writing import Piece, edge_statement, halves, node_statement, to_rows
from tracestore.store.staging import stage


def test_the_migration_is_what_the_schema_gives() -> None:
    path = files("tracestore.cypher").joinpath("migrations", "neo4j", "V001__schema.cypher")
    assert path.read_text(encoding="utf-8") == schema_script()
    (first,) = known_migrations("neo4j")
    assert len(first.statements) == len(schema_names()) - 1  # the chain's own constraint stands before it


def test_every_label_has_a_unique_uid_and_owned_labels_an_index_on_their_output() -> None:
    text = schema_script()
    for node in schema.NODES:
        assert f"FOR (n:{node.label}) REQUIRE n.uid IS UNIQUE;" in text
        owned = any(column.name == "output_uid" for column in node.columns)
        assert (f"FOR (n:{node.label}) ON (n.output_uid);" in text) is owned
    assert "FOR (n:Trace) REQUIRE n.ready_id IS UNIQUE;" in text
    assert "trace_id IS UNIQUE" not in text.replace(
        "FOR (n:StoreTrace) REQUIRE n.trace_id IS UNIQUE", ""
    )  # would block a second generation


def test_statements_name_every_property_once() -> None:
    assert edge_statement("EMITS.Output.Token") == (
        "UNWIND $rows AS r MATCH (a:Output {uid: r[0]}) MATCH (b:Token {uid: r[1]}) CREATE (a)-[:EMITS]->(b)"
    )
    properties = "weight: r[2], rank: r[3], attention: r[4], sensitivity: r[5]"
    assert edge_statement("VALUE.State.Head").endswith(f"CREATE (a)-[:VALUE {{{properties}}}]->(b)")
    assert node_statement("Mlp").startswith(
        "UNWIND $rows AS r CREATE (:Mlp {uid: r[0], trace_no: r[1], output_uid: r[2], layer: r[3], pos: r[4],"
    )


def test_rows_are_plain_python_values() -> None:
    table = pa.table({"a": pa.array([1, 2]), "b": pa.array([0.5, None], pa.float32()), "c": pa.array([["x"], []], pa.list_(pa.string()))})
    assert to_rows(table) == [(1, 0.5, ["x"]), (2, None, [])]
    assert all(type(value) is int for value, _, _ in to_rows(table))


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5))
def test_halves_keep_every_row_in_order(sizes: list[int]) -> None:
    batch = [Piece(f"t{number}", [(number, row) for row in range(size)]) for number, size in enumerate(sizes)]
    left, right = halves(batch)
    total = sum(sizes)
    assert sum(len(piece.rows) for piece in left) == total // 2
    assert [row for piece in (*left, *right) for row in piece.rows] == [row for piece in batch for row in piece.rows]
    assert all(piece.rows and piece.rows[0][0] == int(piece.table[1:]) for piece in (*left, *right))


@given(st.lists(st.integers(0, 30)))
def test_number_runs_cover_exactly_the_numbers(numbers: list[int]) -> None:
    runs = number_runs(numbers)
    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(set(numbers))
    assert all(after[0] > before[1] + 1 for before, after in pairwise(runs))


def test_groups_are_disjoint_complete_and_largest_first() -> None:
    traces = make_traces(7, n_tokens=5) + make_traces(1, first_seed=90, n_tokens=30)
    bundle = bundle_of(traces)
    groups = share_out(bundle, range(8), LoadSettings(writers=3))
    assert sorted(ordinal for group in groups for ordinal in group) == list(range(8))
    assert (len(groups), groups[0]) == (3, [7])  # the one large trace is as much as all the others
    assert sorted(share_out(bundle, [2, 5], LoadSettings(writers=4))) == [[2], [5]]
    assert len(share_out(bundle, range(8), LoadSettings(writers=1))) == 1
    assert len(share_out(bundle, range(8), LoadSettings(batch_rows=200, writers=2))) == 6  # three for each writer: each fills a batch
    whole, parts = (
        stage(bundle, dict(enumerate(range(1, 9))), "mechanism"),
        [stage(bundle, {o: o + 1 for o in group}, "mechanism") for group in groups],
    )
    assert sum(part.edge_count for part in parts) == whole.edge_count


def test_a_group_takes_no_more_rows_than_one_writer_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = make_traces(8)
    bundle = bundle_of(traces)
    each = sum(table.num_rows for table in bundle.tables.values()) // 8
    monkeypatch.setattr(loading, "GROUP_ROWS", 2 * each)
    assert 4 <= len(share_out(bundle, range(8), LoadSettings(writers=1))) <= 5


def test_the_pace_slows_down_at_once_and_recovers_slowly() -> None:
    pace = Pace(10_000)
    assert pace.refused(10_000)
    assert pace.refused(5_000)
    assert pace.rows == 2_500
    for _ in range(49):
        pace.passed()
    assert pace.rows == 2_500
    pace.passed()
    assert pace.rows == 5_000
    for _ in range(200):
        pace.passed()
    assert pace.rows == 10_000
    assert not pace.refused(150)
    assert pace.rows == 100


def test_a_dead_process_of_this_machine_is_known_to_be_dead() -> None:
    me = this_process()
    assert not is_dead(me)
    assert not is_dead(Holder("another machine", "1:1"))
    assert not is_dead(Holder(me.machine, "unknown"))
    done = subprocess.run(
        [sys.executable, "-c", "from tracestore.store.neo4j.holder import this_process as t; print(t().process)"],
        capture_output=True,
        text=True,
        check=True,
    )
    if sys.platform == "linux":
        assert is_dead(Holder(me.machine, done.stdout.strip()))
        assert is_dead(Holder(me.machine, f"{os.getpid()}:1"))  # the number was given to another process since


@pytest.mark.parametrize(("text", "writers"), [("", 1), ("4", 4), ("64", 64)])
def test_writers_from_the_environment(text: str, writers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTORE_WRITERS", text)
    assert settings_from_environment().writers == writers


@pytest.mark.parametrize("text", ["0", "65", "many", "-1", "2.5"])
def test_bad_numbers_of_writers_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTORE_WRITERS", text)
    with pytest.raises(BadInputError, match="from 1 to 64"):
        settings_from_environment()
