"""A fault of the embedded engine that gives wrong rows without an error: statements that would meet it are refused, and ours do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import fixed_traces
from tests.conformance.engines import ENGINES
from tests.conformance.test_catalogue import CASES, OF_OUTPUT
from tests.support.oracle import Oracle, Row
from tests.support.store_graph import bundle_of
from tracestore.errors import QueryError
from tracestore.query import entry, run_cypher, run_named
from tracestore.query.faults import filters_between_hops, read_plan
from tracestore.store.base import Limits, Store

TEXT, SHARE = " the", 0.1
FAULTY = (
    "MATCH (t:Token)-[i:INFLUENCES]->(o:Output)-[:OF]->(x:Trace) WHERE t.text = $text AND i.share >= $share "
    "RETURN o.output_id AS id, t.pos AS pos"
)
BEHIND_WITH = (
    "MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE t.text = $text WITH t, i, o WHERE i.share >= $share "
    "MATCH (o)-[:OF]->(x:Trace) RETURN o.output_id AS id, t.pos AS pos"
)
PARAMS = {"text": TEXT, "share": SHARE}
TWO_HOPS = "MATCH (s:State)-[v:VALUE]->(h:Head)-[w:WRITES]->(x:State) WHERE {} RETURN count(*) AS n"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ENGINES["ladybug"](tmp_path_factory.mktemp("faults")) as store:
        store.load(bundle_of(fixed_traces()), level="mechanism")
        yield store


def rows(store: Store, statement: str) -> set[tuple[str, int]]:
    return {(row["id"], row["pos"]) for row in store.run(statement, PARAMS, Limits()).table.to_pylist()}


def expected() -> set[tuple[str, int]]:
    oracle = Oracle(fixed_traces())
    return {
        (output["output_id"], token["pos"])
        for output in oracle.nodes("Output")
        for token, edge in oracle.entering(output, "INFLUENCES", "Token")
        if token["text"] == TEXT and edge["share"] >= SHARE
    }


def test_the_engine_still_has_the_fault(embedded: Store) -> None:
    """When this fails, the engine is mended: then `query/faults.py` and its words in the docs can go."""
    assert rows(embedded, FAULTY) != expected()


def test_the_way_around_it_is_right_and_accepted(embedded: Store) -> None:
    assert rows(embedded, BEHIND_WITH) == expected()
    found = run_cypher(embedded, BEHIND_WITH, PARAMS).table.to_pylist()
    assert {(row["id"], row["pos"]) for row in found} == expected()


CONDITIONS: dict[str, Callable[[Row, Row, Row, Row, Row], bool]] = {
    "v.weight > 0.1 AND s.pos = 1": lambda s, v, h, w, x: v["weight"] > 0.1 and s["pos"] == 1,
    "v.weight > 0.1": lambda s, v, h, w, x: v["weight"] > 0.1,
    "h.layer = 1 AND v.attention >= 0.2": lambda s, v, h, w, x: h["layer"] == 1 and v["attention"] >= 0.2,
    "w.weight > 0 AND x.layer = 2": lambda s, v, h, w, x: w["weight"] > 0 and x["layer"] == 2,
    "w.weight > 0 AND v.weight > 0 AND h.pos = 2": lambda s, v, h, w, x: w["weight"] > 0 and v["weight"] > 0 and h["pos"] == 2,
    "s.pos = 1": lambda s, v, h, w, x: s["pos"] == 1,
    "s.pos = 1 AND h.layer = 1 AND x.pos = 2": lambda s, v, h, w, x: s["pos"] == 1 and h["layer"] == 1 and x["pos"] == 2,
    "v.weight + w.weight > 0.1": lambda s, v, h, w, x: v["weight"] + w["weight"] > 0.1,
    "true": lambda s, v, h, w, x: True,
}


def refused(store: Store, statement: str, right: int) -> bool:
    """Ask; assert that the answer is right unless it is refused with the way around it."""
    try:
        (row,) = run_cypher(store, statement).table.to_pylist()
    except QueryError as error:
        message = str(error)
    else:
        assert row["n"] == right
        return False
    assert "behind a WITH" in message
    return True


def test_every_two_hop_statement_is_refused_or_right(embedded: Store) -> None:
    oracle = Oracle(fixed_traces())
    paths = [
        (state, value, head, write, oracle.graph.nodes[after])
        for head in oracle.nodes("Head")
        for state, value in oracle.entering(head, "VALUE", "State")
        for _, after, write in oracle.graph.out_edges(head["key"], data=True)
        if write["type"] == "WRITES"
    ]
    found = {text: refused(embedded, TWO_HOPS.format(text), sum(test(*path) for path in paths)) for text, test in CONDITIONS.items()}
    assert found["v.weight > 0.1 AND s.pos = 1"]
    assert not any(found[text] for text in list(CONDITIONS)[5:])


def test_a_relationship_without_a_name_is_seen_too(embedded: Store) -> None:
    oracle = Oracle(fixed_traces())
    judged = [
        edge
        for output in oracle.nodes("Output")
        for token, edge in oracle.entering(output, "INFLUENCES", "Token")
        if edge["rank_direct"] == 1 and token["text"] == TEXT
    ]
    statement = (
        f"MATCH (t:Token)-[:INFLUENCES {{rank_direct: 1}}]->(o:Output)-[:OF]->(x:Trace) WHERE t.text = '{TEXT}' RETURN count(*) AS n"
    )
    assert refused(embedded, statement, len(judged))


def test_one_hop_is_answered(embedded: Store) -> None:
    statement = "MATCH (t:Token)-[i:INFLUENCES]->(o:Output) WHERE t.text = ' the' AND i.share > 0.1 RETURN count(*) AS n"
    assert run_cypher(embedded, statement).table["n"].to_pylist() == [len(expected())]


def test_no_named_query_meets_the_fault(embedded: Store) -> None:
    for name, cases in {**CASES, **OF_OUTPUT}.items():
        found = entry(name, "ladybug")
        for params in cases:
            key = {"output_id": "x"} if name in OF_OUTPUT and found.header.needs else {}
            statement, used = found.statement(found.bind({**key, **params}))
            plan = embedded.run("EXPLAIN " + statement, used, Limits()).table
            assert not filters_between_hops(str(plan.columns[0].to_pylist()[0])), name


def test_a_plan_is_read_box_by_box() -> None:
    plan = (
        "┌─────────────────┐\n│SCAN_REL_TABLE[4]│\n└────────┬────────┘\n"
        "┌────────┴────────┐\n│    FILTER[3]    │\n│  GREATER(i.w)   │\n└────────┬────────┘\n"
        "┌────────┴────────┐\n│SCAN_REL_TABLE[2]│\n│    Alias: i     │\n└─────────────────┘\n"
    )
    assert [(operator.name, operator.number) for operator in read_plan(plan)] == [
        ("SCAN_REL_TABLE", 4),
        ("FILTER", 3),
        ("SCAN_REL_TABLE", 2),
    ]
    assert filters_between_hops(plan)
    assert not filters_between_hops(plan.replace("(i.w) ", "(hi.w)"))
    assert not filters_between_hops(plan.replace("SCAN_REL_TABLE[4]", "PROJECTION[4]    "))


PAGED = "MATCH (t:Token) RETURN t.pos AS pos ORDER BY t.uid SKIP 2 LIMIT 3"


def test_skipping_in_sorted_and_limited_rows_is_refused_in_ad_hoc_cypher(embedded: Store) -> None:
    for statement in (PAGED, PAGED.lower(), PAGED.replace("SKIP", "OFFSET")):
        with pytest.raises(QueryError, match="Leave LIMIT out"):
            run_cypher(embedded, statement, limits=Limits())
    for sound in ("SKIP 2", "LIMIT 3"):
        assert run_cypher(embedded, PAGED.replace("SKIP 2 LIMIT 3", sound)).table.num_rows
    assert run_cypher(embedded, "MATCH (h:HeadSummary) RETURN h.offset AS offset ORDER BY offset LIMIT 2").table.num_rows == 2


@pytest.mark.parametrize(("query", "params"), [("list_traces", {}), ("list_outputs", {"k": 3}), ("search_text", {"text": "cat"})])
def test_named_queries_never_skip_in_the_engine(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, query: str, params: dict[str, object]
) -> None:
    skipped: list[object] = []
    run = embedded.run

    def noting(cypher: str, used: dict[str, Any], limits: Limits) -> Any:
        skipped.append(used["offset"])
        return run(cypher, used, limits)

    whole = run_named(embedded, query, {**params, "k": 1000}).table.to_pylist()
    monkeypatch.setattr(embedded, "run", noting)
    for offset in (1, len(whole), 2**40, 2**63 - 1):
        found = run_named(embedded, query, {**params, "offset": offset})
        assert found.table.to_pylist() == whole[offset:][: int(str(params.get("k", 1000)))]
        assert not found.truncated
    assert set(skipped) == {0}
