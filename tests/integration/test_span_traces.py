"""Span targets, steps and what supports them, from an item to the tables of its trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.small_chase import SMALL_TASK
from tests.support.tiny_text_model import tiny_loaded
from tracestore.archive.redact import redact
from tracestore.errors import BadInputError, ItemError
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase
from tracestore.extract import trace as tracing
from tracestore.extract.loading import LoadedModel, load_model
from tracestore.extract.plan import plan_trace
from tracestore.extract.spool import TableSpool
from tracestore.extract.table_checks import conservation_error
from tracestore.extract.trace import trace
from tracestore.model import Document, GenerationOptions, Item, SpanRequest, Trace, TraceOptions

ITEM = Item(
    prompt="The capital of France is Paris. The capital of Italy is Rome. What is it?",
    completion=" It is in Italy. The capital is Rome.",
    documents=(Document("a", "The capital of France is Paris."), Document("b", "The capital of Italy is Rome.")),
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded()


def rows(found: Trace, name: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = found.table(name).to_pylist()
    return table


def test_a_span_target_is_one_output_that_conserves(loaded: LoadedModel) -> None:
    whole, each = trace(loaded, replace(ITEM, targets="span:answer")), trace(loaded, replace(ITEM, targets="span:answer:each"))
    (output,) = whole.outputs
    first, last = output.row["first_pos"], output.row["pos"]
    assert [o.row["pos"] for o in each.outputs] == list(range(first, last + 1))
    assert output.output_id == f"{whole.trace_id}:{first}..{last}:{output.row['token_id']}"
    assert output.row["text"] == ITEM.completion
    assert output.row["explained"] == pytest.approx(sum(o.row["explained"] for o in each.outputs), abs=1e-4)
    sums = np.zeros(last + 1)
    for one in each.outputs:
        for row in one.influences().to_pylist():
            sums[row["pos"]] += row["score"]
    scores = {row["pos"]: row["score"] for row in output.influences().to_pylist()}
    np.testing.assert_allclose([scores[pos] for pos in range(last + 1)], sums, atol=1e-4)
    assert conservation_error(whole.tables) < 1e-3
    assert len(rows(whole, "UNEMBEDS.State.Output")) == last - first + 1
    tokens = {row["local"]: row["pos"] for row in rows(whole, "Token")}
    assert [tokens[row["dst"]] for row in rows(whole, "EMITS.Output.Token")] == list(range(first + 1, last + 2))
    assert whole.trace_id != each.trace_id


def test_every_document_has_an_influence_that_sums_its_tokens(loaded: LoadedModel) -> None:
    found = trace(loaded, replace(ITEM, targets="span:answer"))
    (output,) = found.outputs
    spans = {row["local"]: row for row in rows(found, "Span")}
    scores = {row["pos"]: row["score"] for row in output.influences().to_pylist()}
    influences = {spans[row["src"]]["ref"] or spans[row["src"]]["kind"]: row for row in rows(found, "INFLUENCES.Span.Output")}
    assert set(influences) == {"a", "b", "answer"}
    for span in spans.values():
        inside = [score for pos, score in scores.items() if span["first_pos"] <= pos <= span["last_pos"]]
        assert influences[span["ref"] or span["kind"]]["score"] == pytest.approx(sum(inside), abs=1e-4)


def test_steps_add_up_to_what_is_explained(loaded: LoadedModel) -> None:
    found = trace(loaded, replace(ITEM, steps="sentence"))
    spans = {row["local"]: row for row in rows(found, "Span")}
    steps = [row for row in spans.values() if row["kind"] == "step"]
    assert [row["text"] for row in steps] == [" It is in Italy.", " The capital is Rome."]
    supports = rows(found, "SUPPORTS.Span.Span")
    outputs = {o.row["pos"] + 1: o for o in found.outputs}
    for span in (*steps, *(row for row in spans.values() if row["kind"] == "answer")):
        mine = [outputs[pos] for pos in range(span["first_pos"], span["last_pos"] + 1)]
        assert span["explained"] == pytest.approx(sum(o.row["explained"] for o in mine), abs=1e-4)
        into = [row["score"] for row in supports if row["dst"] == span["local"]]
        assert span["explained"] == pytest.approx(span["bias"] + span["own"] + span["unassigned"] + sum(into), abs=1e-4)
    names = {(spans[row["src"]]["ref"], spans[row["src"]]["ordinal"], spans[row["dst"]]["ordinal"]) for row in supports}
    assert {("a", 0, 0), ("b", 1, 1), (None, 0, 1)} <= names
    documents = [row for row in spans.values() if row["kind"] == "document"]
    assert all(row["explained"] is None for row in documents)


@pytest.mark.parametrize("targets", ["span:step", "span:step:each"])
def test_steps_are_ranked_by_direct_without_attention_sinks(loaded: LoadedModel, targets: str) -> None:
    found = trace(loaded, replace(ITEM, steps="sentence", targets=targets))
    spans, tokens = ({row["local"]: row for row in rows(found, name)} for name in ("Span", "Token"))
    outputs = {o.row["local"]: o.row["pos"] for o in found.outputs}
    steps = [local for local, row in spans.items() if row["kind"] == "step"]
    for step in steps:
        mine = [local for local, pos in outputs.items() if spans[step]["first_pos"] <= pos + 1 <= spans[step]["last_pos"]]
        sums = dict.fromkeys(spans, 0.0)
        for edge in rows(found, "INFLUENCES.Token.Output"):
            token = tokens[edge["src"]]
            for local, span in spans.items():
                if edge["dst"] in mine and span["first_pos"] <= token["pos"] <= span["last_pos"] and not token["sink"]:
                    sums[local] += edge["direct"]
        edges = sorted((row for row in rows(found, "SUPPORTS.Span.Span") if row["dst"] == step), key=lambda row: row["rank"])
        assert {row["src"] for row in edges} == {local for local, row in spans.items() if row["kind"] == "document"} | set(
            steps[: steps.index(step)]
        )
        assert {row["src"]: row["direct"] for row in edges} == pytest.approx({row["src"]: sums[row["src"]] for row in edges}, abs=1e-4)
        assert [row["direct"] for row in edges] == sorted((row["direct"] for row in edges), reverse=True)


def test_a_step_summed_or_token_by_token_gives_the_same_direct_support(loaded: LoadedModel) -> None:
    one, other = (trace(loaded, replace(ITEM, steps="sentence", targets=t)) for t in ("span:step", "span:step:each"))
    assert len(one.outputs) == 2 < len(other.outputs)
    first, second = ({(row["src"], row["dst"]): row["score"] for row in rows(t, "SUPPORTS.Span.Span")} for t in (one, other))
    assert first == pytest.approx({key: value for key, value in second.items() if key in first}, abs=1e-4)


def test_generated_chains_have_steps_too(loaded: LoadedModel) -> None:
    options = TraceOptions(steps="line", targets="span:step", generation=GenerationOptions(max_new_tokens=12))
    found = trace(loaded, Item(prompt=str(ITEM.prompt)), options)
    steps = [row for row in rows(found, "Span") if row["kind"] == "step"]
    assert len(found.outputs) == len(steps) >= 1
    assert "".join(row["text"] for row in steps) == str(found.text)[len(str(ITEM.prompt)) :]


def test_stretches_belong_to_the_computation(loaded: LoadedModel) -> None:
    plain = plan_trace(loaded, "The capital of France is").trace_id
    marked = [plan_trace(loaded, Item(prompt="The capital of France is", spans=(SpanRequest("turn", 0, end),))).trace_id for end in (3, 11)]
    cut = [plan_trace(loaded, replace(ITEM, steps=rule)).trace_id for rule in (None, "line", "sentence")]
    assert len({plain, *marked, *cut}) == 6
    assert plan_trace(loaded, ITEM, TraceOptions(steps="line")).trace_id == cut[1]
    assert plan_trace(loaded, "The capital of France is", TraceOptions(steps="line")).trace_id == plain  # nothing is cut


def test_questions_without_sense(loaded: LoadedModel) -> None:
    with pytest.raises(ItemError, match="needs a completion"):
        plan_trace(loaded, Item(prompt="The capital", steps="line"))
    with pytest.raises(BadInputError, match="unknown steps"):
        plan_trace(loaded, ITEM, TraceOptions(steps="word"))  # type: ignore[arg-type]
    given = replace(ITEM, spans=(SpanRequest("step", 74, 90),))
    kinds = [row["ordinal"] for row in rows(trace(loaded, given, TraceOptions(steps="line")), "Span") if row["kind"] == "step"]
    assert kinds == [0]  # an item's own steps come before the option


def test_redacted_names_of_spans_say_no_token(loaded: LoadedModel) -> None:
    found = redact(trace(loaded, replace(ITEM, targets="span:answer", steps="sentence")), b"k" * 32)
    (output,) = found.outputs
    assert output.output_id.split(":")[1] == f"{output.row['first_pos']}..{output.row['pos']}"
    assert output.output_id.split(":")[2] == str(output.row["token_id"])
    assert all(row["text"] is None for row in rows(found, "Span"))


def test_tables_that_wait_in_files_are_the_same(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    item = replace(ITEM, targets="all")
    in_memory = trace(loaded, item, run_id="r")
    monkeypatch.setattr(tracing, "TableSpool", lambda: TableSpool(20_000))
    spilled = trace(loaded, item, run_id="r")
    assert spilled.tables.keys() == in_memory.tables.keys()
    for name in in_memory.tables:
        if name != "Trace":
            assert spilled.tables[name].equals(in_memory.tables[name]), name


def test_the_chain_of_a_pointer_chase_leads_back_to_its_drivers(chase: TrainedChase) -> None:
    loaded = load_model(chase.final.folder)
    share = []
    for item in SMALL_TASK.items(8, seed=11):
        found = trace(loaded, with_steps(item))
        spans = {row["local"]: row for row in rows(found, "Span")}
        for row in rows(found, "SUPPORTS.Span.Span"):
            source, step = spans[row["src"]], spans[row["dst"]]
            if source["kind"] == "evidence" and step["kind"] == "step" and row["rank"] == 1:
                share.append(source["ref"] == f"step {step['ordinal'] + 1}")
    assert np.mean(share) > 0.9  # the top evidence of every step is the entry that it looked up


def with_steps(item: Item) -> Item:
    """Make every token of the answer a step."""
    assert item.prompt is not None
    assert item.completion is not None
    starts = [at for at, letter in enumerate(item.completion) if letter == "x"]
    ends = [*(at - 1 for at in starts[1:]), len(item.completion)]
    at = len(item.prompt)
    return replace(item, spans=tuple(SpanRequest("step", at + start, at + end) for start, end in zip(starts, ends, strict=True)))
