"""Every named query against the oracle on one rich store: each filter on and off, order, row cap, paging."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.engines import compare
from tests.support.oracle import QUERIES, Oracle
from tests.support.synthetic import token_id_of
from tracestore.model import Trace
from tracestore.query import catalogue, run_named
from tracestore.store.base import Limits, Store

Params = dict[str, object]

FILTERS: list[Params] = [
    {},
    {"model_id": "other"},
    {"model_id": "nobody"},
    {"dataset": "facts"},
    {"dataset": "facts", "split": "test"},
    {"dataset": "facts", "split": "train"},  # two items of one trace have one each, none has both
    {"method": "frozen"},
    {"method": "value"},
    {"tag": "easy"},
    {"tag": "hard", "dataset": "facts"},
    {"tag": "nowhere"},
    {"session_id": "session-1"},
    {"since": 1_700_000_000_004},
    {"until": 1_700_000_000_004},
    {"since": 1_700_000_000_002, "until": 1_700_000_000_006, "tag": "long"},
]
CORRECT: list[Params] = [{"correct": True}, {"correct": False}]
ORIGIN: list[Params] = [{"origin": "prompt"}, {"origin": "given"}, {"origin": "generated"}, {"origin": "generated", "correct": False}]
SINK: list[Params] = [{"sink": True}, {"sink": False}]
TOKEN: list[Params] = [{"text": " the"}, {"token_id": token_id_of(" the")}, {"text": " nothing"}]
TOLERANCES: list[Params] = [{}, {"tolerance": 0.0}, {"tolerance": 1e-7}, {"tolerance": 10.0}]


def both(first: list[Params], second: list[Params]) -> list[Params]:
    """Combine each of the first with each of the second."""
    return [{**one, **other} for one in first for other in second]


FROM: list[Params] = [{"driver_origin": "prompt"}, {"driver_origin": "generated", "sink": True}]
ACROSS: list[Params] = [{}, {"min_share": 0.1}, *SINK, *ORIGIN, *FROM]
TIES: list[Params] = [{"older_than": 1_700_000_000_001, "after_id": name} for name in ("0" * 32, "f" * 32)]  # two traces of one time
HEADS: list[Params] = [{"layer": 1, "head": 0}, {"layer": 2, "head": 1}, {"layer": 0, "head": 2}]
KINDS: list[Params] = [{"kind": "column"}, {"kind": "edge"}, {"kind": "head"}, {"kind": "motif"}]
CASES: dict[str, list[Params]] = {
    "drivers_across": both(TOKEN, [*FILTERS, *CORRECT, *ACROSS]),
    "outputs_driven_by": both(TOKEN, [*FILTERS, *CORRECT, *ACROSS]),
    "heads_across": both([{}, *TOKEN], [*FILTERS, *CORRECT, *ORIGIN, *SINK, {"min_share": 0.2}]),
    "motifs_across": both([{}, *TOKEN], [*FILTERS, *CORRECT, *ORIGIN, *SINK, {"min_share": 0.3}, {"motif": "emb>L0.mlp>out"}]),
    "compositions_across": both(
        [{}, TOKEN[0]], [*FILTERS, *CORRECT, *ORIGIN, {"min_weight": 0.5}, {"src": "emb"}, {"dst": "out"}, {"via": "V"}]
    ),
    "outputs_of_head": both(HEADS, both([{}, TOKEN[0]], [*FILTERS, *CORRECT, *ORIGIN, *SINK, {"min_share": 0.2}])),
    "induction_heads": [*both(FILTERS, [{}, *CORRECT, {"min_outputs": 2}]), *ORIGIN, *SINK, {"min_share": 0.1}],
    "correct_or_wrong": both([{}, *TOKEN], [*FILTERS, *ORIGIN[:3], *SINK, {"min_share": 0.1}]),
    "correct_or_wrong_tokens": both([{}, {"sink": True}], both([{}, *TOKEN], [*FILTERS, *ORIGIN[:3], {"min_share": 0.1}])),
    "list_traces": [*FILTERS, {"since": 1_700_000_000_004}, {"older_than": 1_700_000_000_004}, *TIES, *CORRECT, *ORIGIN],
    "list_outputs": both([{}, *TOKEN], [*FILTERS, *CORRECT, *ORIGIN]),
    "disagreement": [
        *both(FILTERS[:3], [{}, *KINDS, {"min_ranks": 1}]),
        *both([{}, {"min_ranks": 1}], [*FILTERS[3:], *CORRECT, *ORIGIN, *SINK]),
    ],
    "unverified": [
        *both(FILTERS[:3], [{}, {"kind": "mean_embedding"}, {"top": 1}, {"top": 100}]),
        *both([{"top": 100}], [*FILTERS[3:], *CORRECT, *ORIGIN, *SINK, {"min_share": 0.1}]),
    ],
    "search_text": both(
        [{"text": "cat sat"}, {"text": "MARY"}, {"text": "MARY", "ignore_case": False}, {"text": "zz"}], [*FILTERS, *CORRECT, *ORIGIN]
    ),
    "stats": [*FILTERS, *CORRECT, *ORIGIN],
    "sink_report": [*both(FILTERS, [{}, *CORRECT]), *ORIGIN, {"min_share": 0.2}],
    "context_or_prompt": [*FILTERS, *CORRECT, *ORIGIN, *SINK, {"min_share": 0.3}],
    "compare_models": both(
        [{"a": "synthetic", "b": "other"}, {"a": "synthetic", "b": "rival"}, {"a": "other", "b": "other", "step_a": 500, "step_b": 900}],
        [
            {},
            {"min_share": 0.2},
            {"dataset": "facts"},
            {"method": "value"},
            {"tag": "easy"},
            {"until": 1_700_000_000_004},
            *CORRECT,
            *ORIGIN,
            *SINK,
        ],
    ),
    "compare_models_motifs": both(
        [{"a": "synthetic", "b": "other"}, {"a": "other", "b": "other", "step_a": 500, "step_b": 900}],
        [{}, {"min_share": 0.2}, {"dataset": "facts"}, {"tag": "easy"}, *CORRECT, *ORIGIN, *SINK],
    ),
    "compare_models_tokens": both(
        [{"a": "synthetic", "b": "other"}, {"a": "synthetic", "b": "other", "step_b": 900}],
        [{}, {"min_share": 0.2}, {"dataset": "facts", "split": "test"}, *CORRECT, *ORIGIN, *SINK],
    ),
    "compare_variants": both(
        [{"a": "clean", "b": "corrupt"}],
        [
            {},
            {"dataset": "facts"},
            {"model_id": "other"},
            {"split": "test"},
            {"tag": "easy"},
            {"since": 1_700_000_000_004},
            *CORRECT,
            *ORIGIN,
            *SINK,
        ],
    ),
    "compare_variants_motifs": both(
        [{"a": "clean", "b": "corrupt"}], [{}, {"model_id": "other"}, {"split": "test"}, *CORRECT, *ORIGIN, *SINK]
    ),
    "compare_variants_tokens": both(
        [{"a": "clean", "b": "corrupt"}, {"a": "corrupt", "b": "clean"}], [{}, {"method": "frozen"}, *CORRECT, *ORIGIN, *SINK]
    ),
}
OF_OUTPUT: dict[str, list[Params]] = {
    "drivers": both([{"by": "direct"}, {"by": "total"}, {"by": "score"}], [{}, {"sink": False}]),
    "driver_heads": [{}],
    "driver_paths": [{}],
    "knockouts": [{}, *KINDS],
    "span_drivers": [{}, {"own": True}, {"kind": "document"}, {"kind": "step", "own": True}],
    "thought_chain": [{}, {"width": 8, "hops": 6}, {"width": 1}, {"hops": 0}, {"hops": 1, "width": 2}],
    "similar_mechanism": [{}, {"min_cosine": 0.5}, *both([{"any_model": True}], [*FILTERS, *CORRECT, *ORIGIN])],
    "check_conservation": TOLERANCES,
    "conservation_summary": TOLERANCES,
    "check_closure": TOLERANCES,
}


def test_every_query_has_an_oracle_and_cases() -> None:
    assert set(catalogue()) == set(QUERIES) == set(CASES) | set(OF_OUTPUT) | {"step_graph"}


@pytest.mark.parametrize("query", sorted(CASES))
def test_query_over_all_traces(store: Store, oracle: Oracle, query: str) -> None:
    counts = [compare(store, oracle, query, params) for params in CASES[query]]
    assert max(counts) > 0  # a query that never finds anything agrees with everything


@pytest.mark.parametrize("query", sorted(OF_OUTPUT))
def test_query_of_one_output(store: Store, oracle: Oracle, traces: list[Trace], query: str) -> None:
    ids = [output.output_id for trace in (traces[0], traces[2], traces[4], traces[8], traces[-1]) for output in trace.outputs]
    counts = [
        compare(store, oracle, query, {"output_id": i, **params}) for i in ids[:: max(1, len(ids) // 6)] for params in OF_OUTPUT[query]
    ]
    broken = [output.output_id for output in traces[-1].outputs]
    counts += [compare(store, oracle, query, {"output_id": i, **params}) for i in broken for params in OF_OUTPUT[query]]
    assert max(counts) > 0


@pytest.mark.parametrize("query", ["check_closure", "check_conservation", "conservation_summary"])
def test_checks_over_everything_and_over_one_trace(store: Store, oracle: Oracle, traces: list[Trace], query: str) -> None:
    for tolerance in TOLERANCES:
        compare(store, oracle, query, tolerance)
        compare(store, oracle, query, {"trace_id": traces[-1].trace_id, **tolerance})
    assert max(compare(store, oracle, query, {"tolerance": 0.0, **more}) for more in (*FILTERS, *CORRECT, *ORIGIN)) > 0


@pytest.mark.parametrize("params", both([{}, {"by": "score"}, {"by": "total"}], [{}, {"steps_only": True}]))
def test_steps_of_a_trace(store: Store, oracle: Oracle, traces: list[Trace], params: Params) -> None:
    cut = [trace for trace in traces if trace.table("SUPPORTS.Span.Span").num_rows]
    assert len(cut) == 2
    assert all(compare(store, oracle, "step_graph", {"trace_id": trace.trace_id, **params}) > 0 for trace in cut[:1])
    assert all(compare(store, oracle, "step_graph", {"trace_id": trace.trace_id, **params}) >= 0 for trace in (*cut[1:], traces[0]))


def test_checks_find_what_was_broken_and_nothing_else(store: Store, traces: list[Trace]) -> None:
    broken = {output.output_id for output in traces[-1].outputs}
    nodes = run_named(store, "check_conservation", {"k": 10_000}).table.to_pylist()
    assert {row["output_id"] for row in nodes} == broken
    assert {row["node"] for row in nodes} == {"State", "Head", "Mlp"}
    (closure,) = run_named(store, "check_closure").table.to_pylist()
    assert closure["output_id"] == traces[-1].outputs[0].output_id
    summary = run_named(store, "conservation_summary").table.to_pylist()
    assert sum(row["offenders"] for row in summary) == len(nodes)
    assert all(row["checked"] > row["offenders"] > 0 for row in summary)


def test_uid_finds_the_same_as_the_id(store: Store) -> None:
    for row in run_named(store, "list_outputs").table.to_pylist()[::5]:
        for query in ("drivers", "driver_heads", "similar_mechanism"):
            by_id = run_named(store, query, {"output_id": row["output_id"]}).table
            assert run_named(store, query, {"output_uid": str(row["output_uid"])}).table.equals(by_id)


@pytest.mark.parametrize(("query", "params"), [("list_traces", {}), ("list_outputs", {}), ("search_text", {"text": "cat"})])
def test_pages_join_to_the_whole(store: Store, query: str, params: Params) -> None:
    whole = run_named(store, query, {**params, "k": 1000}).table.to_pylist()
    pages = [run_named(store, query, {**params, "k": "3", "offset": str(at)}).table.to_pylist() for at in range(0, len(whole) + 3, 3)]
    assert len(whole) > 3
    assert [row for page in pages for row in page] == whole


def test_drivers_explain_the_whole_output(store: Store, traces: list[Trace]) -> None:
    for output in traces[0].outputs:
        rows = run_named(store, "drivers", {"output_id": output.output_id, "k": 1000}).table.to_pylist()
        assert len(rows) == output.row["pos"] + 1
        assert sum(row["score"] for row in rows) + output.row["bias"] == pytest.approx(output.row["explained"], abs=1e-4)
        assert rows[-1]["sink"]
        assert [row["rank_drive"] for row in rows] == list(range(1, len(rows) + 1))


def test_drivers_are_ordered_by_the_value_of_drive_and_by_the_size_of_scores(store: Store, traces: list[Trace]) -> None:
    outputs = [output.output_id for trace in traces for output in trace.outputs]
    found = {by: [ranked(store, output, by) for output in outputs] for by in ("drive", "direct", "score")}
    assert found["drive"] == [ranked(store, output) for output in outputs]
    for one in found["drive"]:
        assert one == sorted(one, key=lambda row: (row["sink"], -row["drive"], row["pos"]))
    worst = [one[-2] for one in found["drive"] if len(one) > 2]  # before the sink
    assert any(row["drive"] < 0 and abs(row["drive"]) > 0.1 for row in worst)
    for one in found["score"]:
        assert one == sorted(one, key=lambda row: (row["sink"], -abs(row["score"]), row["pos"]))
    assert all([row["rank_direct"] for row in one] == list(range(1, len(one) + 1)) for one in found["direct"])


def ranked(store: Store, output_id: str, by: str | None = None) -> list[dict[str, Any]]:
    params = {"output_id": output_id, "k": 1000} | ({} if by is None else {"by": by})
    return run_named(store, "drivers", params).table.to_pylist()


def test_a_smaller_limit_says_that_it_cut(store: Store) -> None:
    result = run_named(store, "list_outputs", limits=Limits(max_rows=2))
    assert (result.table.num_rows, result.truncated) == (2, True)
