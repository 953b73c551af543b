"""The catalogue itself: what is in it, how it is looked up, and how a query is run on a store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

import pyarrow as pa
import pytest

from tracestore.errors import QueryError
from tracestore.query import catalogue, check_read_only, entry, run_cypher, run_named
from tracestore.query import catalogue as catalogue_function
from tracestore.query.header import FILTERS
from tracestore.query.parameters import Value
from tracestore.store.base import Capabilities, Limits, Result, Store

FIRST = {
    *("drivers", "driver_heads", "drivers_across", "outputs_driven_by", "heads_across", "induction_heads", "correct_or_wrong"),
    *("similar_mechanism", "check_conservation", "list_traces", "search_text", "stats"),
}


SOMETHING: dict[str, Value] = {"int": 1, "float": 0.5, "string": "x", "bool": True}


class Recorder:
    """A store that notes what it is asked and answers with one row."""

    capabilities = Capabilities("ladybug", False, False)

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.table = pa.Table.from_pylist([dict(row)])
        self.asked: list[tuple[str, Mapping[str, Any], Limits]] = []

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        self.asked.append((cypher, params, limits))
        return Result(self.table, truncated=True)


STATS_ROW = {column.name: 1 for column in entry("stats").header.columns} | {"model_id": "m", "method": "frozen", "tokens": Decimal(7)}


def test_the_first_catalogue_is_there() -> None:
    assert set(catalogue()) >= FIRST
    assert list(catalogue()) == sorted(catalogue())


@pytest.mark.parametrize("dialect", [None, "ladybug"])
def test_every_query_can_be_read_and_only_reads(dialect: str | None) -> None:
    for name, found in catalogue_function(dialect).items():
        assert found.name == name
        everything = {p.name: p.default if p.default is not None else SOMETHING[p.type] for p in found.header.parameters}
        statement, used = found.statement(everything)
        check_read_only(statement)
        assert set(used) == set(everything)
        nothing = {p.name: p.default for p in found.header.parameters}
        statement, used = found.statement(nothing)
        check_read_only(statement)
        assert {name for name, value in used.items() if value is None} <= {p.name for p in found.header.parameters if p.required}


@pytest.mark.parametrize("name", sorted(name for name, found in catalogue().items() if found.header.across))
def test_a_query_over_many_prompts_takes_every_filter_or_says_why_not(name: str) -> None:
    header = entry(name).header
    taken = {p.name for p in header.parameters} | ({"model_id"} if {"a", "b"} <= {p.name for p in header.parameters} else set())
    said = {name for name, _ in header.without}
    assert set(FILTERS) - taken - said == set()
    assert said <= {"min_share", "sink", "correct"}  # whose trace it is can be asked of every query


def test_which_queries_are_over_many_prompts() -> None:
    of_one = {name for name, found in catalogue().items() if not found.header.across}
    assert of_one == {"drivers", "driver_heads", "driver_paths", "knockouts", "span_drivers", "step_graph", "thought_chain"}


def test_an_override_is_used_in_its_dialect_only() -> None:
    assert "reduce(" in entry("similar_mechanism").cypher
    assert "list_transform(" in entry("similar_mechanism", "ladybug").cypher
    assert entry("drivers", "ladybug") == entry("drivers")


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(QueryError, match="did you mean drivers"):
        entry("driver")
    with pytest.raises(QueryError, match="there are check_closure"):
        entry("zzz")


def test_strings_are_typed_and_only_used_parameters_are_sent() -> None:
    store = Recorder(STATS_ROW)
    result = run_named(cast(Store, store), "stats", {"model_id": "m", "k": "5"})
    ((cypher, params, limits),) = store.asked
    assert params == {"model_id": "m", "k": 5}
    assert "$dataset" not in cypher
    assert limits.max_rows == 5
    assert result.truncated
    assert result.table.schema.field("tokens").type == pa.int64()
    assert result.table.schema.field("closure_mean").type == pa.float64()
    assert result.table["tokens"].to_pylist() == [7]


def test_given_limits_are_passed_on() -> None:
    store = Recorder(STATS_ROW)
    run_named(cast(Store, store), "stats", limits=Limits(1.5, 2))
    assert store.asked[0][2] == Limits(1.5, 2)


def test_cypher_reaches_the_store_only_past_the_guard() -> None:
    store = Recorder({"x": 1})
    with pytest.raises(QueryError):
        run_cypher(cast(Store, store), "MATCH (n) DELETE n")
    assert store.asked == []
    assert run_cypher(cast(Store, store), "MATCH (n) WHERE n.x = $x RETURN n.x AS x", {"x": 3}).table["x"].to_pylist() == [1]
    assert store.asked[0][1] == {"x": 3}


def test_importing_the_queries_loads_neither_arrow_nor_an_engine() -> None:
    code = "import sys, tracestore.query as q; q.catalogue(); print([m for m in ('pyarrow', 'ladybug', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
