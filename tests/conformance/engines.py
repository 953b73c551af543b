"""The engines that the conformance suite runs on. A new engine is one more line in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.support.neo4j_server import shared_server
from tests.support.oracle import Oracle, Row
from tracestore.query import entry, run_named
from tracestore.store import open_engine
from tracestore.store.base import Store
from tracestore.store.neo4j.writers import LoadSettings

ENGINES: dict[str, Callable[[Path], Store]] = {
    "ladybug": lambda folder: open_engine(str(folder / "graph.lbug")),
    # one server for the whole run, emptied by whoever opens it; small batches, so that a load reports more than once
    "neo4j": lambda folder: shared_server().open_empty(settings=LoadSettings(batch_rows=50)),
}

TOLERANCE = 2e-6
"""Relative and absolute: stores keep float32, and may add in another order."""


def compare(store: Store, oracle: Oracle, query: str, params: dict[str, object]) -> int:
    """Ask both; assert equal rows, the promised order, and that a row cap gives the first of them. Give the number of rows."""
    header = entry(query, store.capabilities.dialect)
    everything = dict(params) | ({"k": 1_000_000} if header.header.rows == "k" else {})
    values = header.bind(everything)
    expected = oracle.ask(query, values)
    result = run_named(store, query, everything)
    assert not result.truncated
    found = result.table.to_pylist()
    assert [c.name for c in header.header.columns] == result.table.column_names
    _assert_null_only_where_said(query, store, found)
    _assert_equal_sets(found, expected)
    order = header.order(values)
    _assert_ordered(found, order)
    if header.header.rows == "k" and found:
        k = max(1, len(found) // 2)
        _assert_first(run_named(store, query, {**params, "k": k}).table.to_pylist(), found, order, k)
    return len(found)


def _assert_first(some: list[Row], found: list[Row], order: tuple[tuple[str, bool, bool], ...], k: int) -> None:
    """Assert that `some` are the first k of `found`; which of two rows comes first may change when sums differ in the last bit."""
    assert len(some) == k
    name, _, absolute = order[0]
    for one, other in zip(some, found[:k], strict=True):
        assert _close(abs(one[name]), abs(other[name])) if absolute else _close(one[name], other[name])
    assert len({_exact(row) for row in some} & {_exact(row) for row in found}) == len({_exact(row) for row in some})


def _exact(row: Row) -> str:
    return repr({name: value for name, value in row.items() if not isinstance(value, float)})


def _assert_null_only_where_said(query: str, store: Store, rows: list[Row]) -> None:
    for column in entry(query, store.capabilities.dialect).header.columns:
        if not column.nullable:
            assert all(row[column.name] is not None for row in rows), f"{column.name} is null"


def _assert_equal_sets(found: list[Row], expected: list[Row]) -> None:
    assert len(found) == len(expected)
    if not found:
        return
    names = sorted(expected[0])
    for one, other in zip(_canonical(found, names), _canonical(expected, names), strict=True):
        for name in names:
            assert _close(one[name], other[name]), f"{name}: {one[name]!r} is not {other[name]!r} in {one} and {other}"


def _canonical(rows: list[Row], names: list[str]) -> list[Row]:
    """Sort by what is exact first; rows that differ only in floats fall into the same order on both sides."""

    def key(row: Row) -> tuple[list[str], list[float]]:
        exact = [repr(row[n]) for n in names if not isinstance(row[n], float)]
        return exact, [round(row[n], 4) for n in names if isinstance(row[n], float)]

    return sorted(rows, key=key)


def _close(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one), abs(other))
    return type(one) is type(other) and one == other


def _assert_ordered(rows: list[Row], order: tuple[tuple[str, bool, bool], ...]) -> None:
    for before, after in pairwise(rows):
        for name, descending, absolute in order:
            one, other = before[name], after[name]
            if one is None or other is None:
                if one is not other:
                    break  # where nulls go is the engine's choice
                continue
            if absolute:
                one, other = abs(one), abs(other)
            if _close(one, other) and one != other:
                break  # too close for two ways of adding to agree on
            if one != other:
                assert (one > other) is descending, f"{name} is out of order"
                break
        else:
            raise AssertionError(f"two rows are equal in every key of the order: {before} and {after}")
