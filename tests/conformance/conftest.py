"""One store for each engine and module, filled once with traces made to hold every case that the queries tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from tests.conformance.engines import ENGINES
from tests.support.oracle import Oracle
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.store.base import Store


def with_column(trace: Trace, table: str, name: str, values: list[Any]) -> Trace:
    """Give the trace with one column replaced."""
    old = trace.table(table)
    index = old.schema.get_field_index(name)
    changed = old.set_column(index, old.schema.field(name), pa.array(values, old.schema.field(name).type))
    return replace(trace, tables={**trace.tables, table: changed})


def numbers(trace: Trace, table: str, name: str) -> list[float]:
    """Give a column of numbers."""
    values: list[Any] = trace.table(table)[name].to_pylist()
    return [float(value) for value in values]


def fixed_traces() -> list[Trace]:
    """Make traces with: repeated words, exact ties, two models, shared items, unjudged answers, no text, and broken conservation."""
    facts: list[dict[str, Any]] = [
        {"item_id": "a", "dataset": "facts", "split": "test", "correct": True},
        {"item_id": "b", "dataset": "maths", "split": "train"},
    ]
    cat = "the cat sat on the cat sat on the mat"
    traces = [
        make_trace(1, text=cat, n_outputs=4, items=facts, knockouts=True, paths=True),
        make_trace(2, text=cat, n_outputs=3, items=facts[:1], model_id="other", n_heads=3, paths=True),
        make_trace(3, n_tokens=9, n_outputs=5, items=[], n_prompt_tokens=4, knockouts=True, paths=True),
        make_trace(4, text="Mary gave the cat", n_outputs=2, items=facts[1:], parallel=True),
        make_trace(5, text="x", items=facts[:1], target_text=" the", paths=True),
        make_trace(6, text=cat, n_outputs=2, model_id="rival", knockouts=True),
        make_trace(7, text=cat, n_outputs=2, mechanism=False),
        make_trace(10, text=cat, positions=[3, 7]),  # one token predicted twice in one trace
    ]
    word = "the dog sat on the mat because it was the mat"
    traces += [
        make_trace(
            11, text=word, n_outputs=7, n_prompt_tokens=5, steps=3, items=[{**facts[0], "item_id": "pair", "variant": "clean"}], paths=True
        ),
        make_trace(
            12, text=word.replace("dog", "old cat"), n_outputs=6, items=[{**facts[0], "item_id": "pair", "variant": "corrupt"}], paths=True
        ),
        make_trace(
            13, text=word, n_outputs=7, n_prompt_tokens=5, model_id="other", steps=2, checkpoint_step=500, items=facts[:1], paths=True
        ),
        make_trace(14, text=word, n_outputs=7, n_prompt_tokens=5, model_id="other", checkpoint_step=900),
    ]
    twin = make_trace(1, text=cat, n_outputs=4, items=facts[:1], trace_id="0" * 32)
    unjudged = with_column(traces[2], "Output", "correct", [None, True, False, None, True])
    textless = make_trace(8, text=cat, n_outputs=1, paths=True)
    for table in ("Trace", "Token", "Span", "Output"):
        textless = with_column(textless, table, "text", [None] * textless.table(table).num_rows)
    broken = make_trace(9, text="seven plus three", n_outputs=2)
    for table in ("State", "Head", "Mlp"):
        relevance = numbers(broken, table, "relevance")
        broken = with_column(broken, table, "relevance", [value + 0.5 * (i % 3 == 0) for i, value in enumerate(relevance)])
    explained = numbers(broken, "Output", "explained")
    broken = with_column(broken, "Output", "explained", [explained[0] + 1.0, *explained[1:]])
    unjudged = with_column(unjudged, "Token", "origin", ["prompt"] * 4 + ["given", "given", "generated", "given", "generated"])
    return [*traces[:2], unjudged, *traces[3:], twin, textless, broken]


@pytest.fixture(scope="session")
def traces() -> list[Trace]:
    return fixed_traces()


@pytest.fixture(scope="session")
def oracle(traces: list[Trace]) -> Oracle:
    return Oracle(traces)


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")  # not longer: on a server, the next module's stores take its place
def store(engine: str, traces: list[Trace], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with ENGINES[engine](tmp_path_factory.mktemp(engine)) as opened:
        report = opened.load(bundle_of(traces), level="mechanism")
        assert len(report.loaded) == len(traces)
        yield opened
