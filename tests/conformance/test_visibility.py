"""Queries see READY traces only: what was evicted, replaced or is still loading never shows, in any query."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import ENGINES, compare
from tests.support.oracle import QUERIES, Oracle
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.query import catalogue, entry, run_named
from tracestore.store.base import Store

TEXT = "the cat sat on the cat"


NEEDED: dict[str, object] = {"a": "synthetic", "b": "other", "layer": 1, "head": 0, "trace_id": f"{1:032x}"}
"""Values of what some queries cannot do without."""


def traces(*seeds: int) -> list[Trace]:
    return [make_trace(seed, text=TEXT, n_outputs=2, trace_id=f"{seed:032x}") for seed in seeds]


def ask_everything(store: Store, oracle: Oracle, output_id: str) -> None:
    for query in sorted(QUERIES):
        names = {p.name for p in entry(query).header.parameters}
        params: dict[str, object] = {"output_id": output_id} if "output_uid" in names else {}
        params |= {name: value for name, value in NEEDED.items() if name in names}
        if (entry(query).header.needs and "text" in names) or query == "search_text":
            params["text"] = " cat"
        compare(store, oracle, query, params)


@pytest.fixture(params=sorted(ENGINES))
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with ENGINES[request.param](tmp_path) as store:
        yield store


def test_an_empty_store_answers_with_no_rows(empty: Store) -> None:
    ask_everything(empty, Oracle([]), "nothing")


def test_evicted_traces_never_show(empty: Store) -> None:
    first, second, third = traces(1, 2, 3)
    empty.load(bundle_of([first, second, third]), level="mechanism")
    assert empty.evict([second.trace_id]) == 1
    ask_everything(empty, Oracle([first, third]), second.outputs[0].output_id)
    ask_everything(empty, Oracle([first, third]), first.outputs[0].output_id)


def test_the_replaced_generation_never_shows(empty: Store) -> None:
    first, second = traces(1, 2)
    other = make_trace(9, text=TEXT, n_outputs=2, trace_id=second.trace_id)
    empty.load(bundle_of([first, second]), level="mechanism")
    empty.load(bundle_of([other]), level="mechanism", replace=True)
    ask_everything(empty, Oracle([first, other]), other.outputs[0].output_id)


class StoppedError(Exception):
    """Raised in the middle of a load."""


def test_what_is_still_loading_never_shows(empty: Store) -> None:
    """Ask everything from within a load, when its edges are stored and not yet visible; then break the load off and ask again."""
    first, second = traces(1, 2)
    oracle = Oracle([first])
    empty.load(bundle_of([first]), level="mechanism")
    asked: list[int] = []

    def ask(count: int) -> None:
        ask_everything(empty, oracle, second.outputs[0].output_id)
        asked.append(count)
        if len(asked) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        empty.load(bundle_of([second]), level="mechanism", progress=ask)
    assert len(asked) == 3
    ask_everything(empty, oracle, second.outputs[0].output_id)
    ask_everything(empty, oracle, first.outputs[0].output_id)


def test_every_query_asks_for_ready_traces() -> None:
    for dialect in [None, *ENGINES]:
        for name, found in catalogue(dialect).items():
            starts = found.cypher.count(":Trace)")
            assert starts == found.cypher.count("ready_id IS NOT NULL") > 0, name


def hide(store: Any, trace_id: str, statement: str) -> None:
    """Put a store into a state that a crash could leave, through the engine's own connection."""
    import ladybug

    ladybug.Connection(store._handle.database).execute(statement, {"trace_id": trace_id})


@pytest.mark.parametrize("status", ["LOADING", "RETIRED"])
def test_traces_without_a_ready_id_never_show(tmp_path: Path, status: str) -> None:
    first, second = traces(1, 2)
    opener: Callable[[Path], Store] = ENGINES["ladybug"]
    with opener(tmp_path) as store:
        store.load(bundle_of([first, second]), level="mechanism")
        hide(store, second.trace_id, f"MATCH (t:Trace) WHERE t.trace_id = $trace_id SET t.ready_id = NULL, t.status = '{status}'")
        ask_everything(store, Oracle([first]), second.outputs[0].output_id)
        ask_everything(store, Oracle([first]), first.outputs[0].output_id)
        assert run_named(store, "stats").table["traces"].to_pylist() == [1]
