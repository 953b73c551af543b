"""Random small sets of traces against the oracle: repeated words, several models, shared and missing items, ties, broken weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.conformance.conftest import numbers, with_column
from tests.conformance.engines import ENGINES, compare
from tests.support.oracle import QUERIES, Oracle
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.query import entry

WORDS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a random trace is made from."""

    seed: int
    words: list[str]
    outputs: int
    model: str
    heads: int
    datasets: list[str]
    target: str
    parallel: bool
    broken: bool
    judged: bool
    knockouts: bool

    def make(self, name: str) -> Trace:
        items = [{"item_id": f"i{n}", "dataset": dataset, "split": "test" if n else "train"} for n, dataset in enumerate(self.datasets)]
        trace = make_trace(
            self.seed,
            text=" ".join(self.words),
            n_outputs=self.outputs,
            model_id=self.model,
            n_heads=self.heads,
            n_layers=2,
            items=items,
            target_text=" " + self.target,
            parallel=self.parallel,
            knockouts=self.knockouts,
            paths=self.knockouts,
            trace_id=name,
        )
        if self.broken:
            relevance = numbers(trace, "State", "relevance")
            trace = with_column(trace, "State", "relevance", [value + 1.0 for value in relevance[:1]] + relevance[1:])
        if not self.judged:
            trace = with_column(trace, "Output", "correct", [None] * trace.table("Output").num_rows)
        return trace


SPECS = st.builds(
    Spec,
    seed=st.integers(0, 3),  # few seeds: equal specs make exact ties
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
    outputs=st.integers(1, 3),
    model=st.sampled_from(["m", "n"]),
    heads=st.integers(1, 2),
    datasets=st.lists(st.sampled_from(["x", "y"]), max_size=2),
    target=st.sampled_from(WORDS),
    parallel=st.booleans(),
    broken=st.booleans(),
    judged=st.booleans(),
    knockouts=st.booleans(),
)
OPTIONS: dict[str, st.SearchStrategy[object]] = {
    "model_id": st.sampled_from(["m", "n"]),
    "dataset": st.sampled_from(["x", "y"]),
    "split": st.sampled_from(["train", "test"]),
    "correct": st.booleans(),
    "origin": st.sampled_from(["prompt", "generated"]),
    "driver_origin": st.sampled_from(["prompt", "generated"]),
    "min_share": st.sampled_from([0.05, 0.3]),
    "min_cosine": st.sampled_from([-0.5, 0.5]),
    "min_outputs": st.integers(1, 3),
    "min_ranks": st.integers(1, 3),
    "kind": st.sampled_from(["column", "mean_embedding"]),
    "top": st.integers(1, 4),
    "sink": st.booleans(),
    "any_model": st.booleans(),
    "by": st.sampled_from(["direct", "total", "score"]),
    "tolerance": st.sampled_from([1e-5, 0.1]),
    "ignore_case": st.booleans(),
}
REQUIRED: dict[str, st.SearchStrategy[object]] = {
    "layer": st.integers(0, 1),
    "head": st.integers(0, 1),
    "a": st.sampled_from(["m", "n"]),
    "b": st.sampled_from(["m", "n"]),
    "trace_id": st.sampled_from([f"{number:032x}" for number in range(4)]),
}
"""For queries that cannot do without."""

PAGING = frozenset({"k", "offset", "since", "older_than", "after_id"})
"""Parameters that cut or page the rows: `compare` and the catalogue's own cases try them."""


def options_of(query: str) -> dict[str, st.SearchStrategy[object]]:
    """Give what may be drawn for the parameters that a query can do without: by what its header says of them, else as said above."""
    found: dict[str, st.SearchStrategy[object]] = {}
    for p in entry(query).header.parameters:
        if p.choices:
            found[p.name] = st.sampled_from(p.choices)
        elif p.name in OPTIONS:
            found[p.name] = OPTIONS[p.name]
        elif p.type == "bool":
            found[p.name] = st.booleans()
        elif p.required or p.name in PAGING:
            continue
        elif p.type == "int" and p.low is not None:
            found[p.name] = st.integers(int(p.low), int(p.low) + 3)
        elif p.type == "float" and p.low is not None and p.high is not None:
            found[p.name] = st.sampled_from([p.low, (p.low + p.high) / 2])
    return found


TEXTS = st.sampled_from([f" {word}" for word in WORDS])


PHASES = (Phase.explicit, Phase.generate)  # shrinking would fill a store hundreds of times


@pytest.mark.parametrize("engine", sorted(ENGINES))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=PHASES)
@given(specs=st.lists(SPECS, min_size=1, max_size=4), data=st.data())
def test_random_traces_give_the_oracles_rows(engine: str, specs: list[Spec], data: st.DataObject) -> None:
    traces = [spec.make(f"{number:032x}") for number, spec in enumerate(specs)]
    oracle = Oracle(traces)
    ids = [output.output_id for trace in traces for output in trace.outputs]
    with tempfile.TemporaryDirectory() as folder, ENGINES[engine](Path(folder)) as store:
        store.load(bundle_of(traces), level="mechanism")
        for query in sorted(QUERIES):
            known = {p.name: p for p in entry(query).header.parameters}
            params = {name: data.draw(strategy) for name, strategy in sorted(options_of(query).items()) if data.draw(st.booleans())}
            if "output_uid" in known:
                params["output_id"] = data.draw(st.sampled_from(ids))
            if "text" in known and (known["text"].required or entry(query).header.needs):
                params["text"] = data.draw(TEXTS)
            for name in sorted(known.keys() & REQUIRED.keys() - params.keys()):
                if known[name].required:
                    params[name] = data.draw(REQUIRED[name])
            note(f"{query} {params}")
            compare(store, oracle, query, params)
